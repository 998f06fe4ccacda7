"""One, two and three gateways on one PostgreSQL, each with as many clients as the others."""

from dataclasses import dataclass, replace

import clients
import contenders
import databases
import django_rows
import programs
from contenders import Contender, Field
from servers import Server

COUNTS = {1: "one gateway", 2: "two gateways", 3: "three gateways"}


@dataclass(frozen=True)
class Group:
    """Several gateways as one proxy."""

    members: list[Server]

    @property
    def port(self):
        """Of one of them."""
        return self.members[0].port

    def cpu_seconds(self):
        """Of all of them."""
        return sum(member.cpu_seconds() for member in self.members)

    def memory_kib(self):
        """Of all of them."""
        return sum(member.memory_kib() for member in self.members)

    def forget_log(self):
        """Empties their logs."""
        for member in self.members:
            member.forget_log()

    def check(self):
        """Fails if one has ended."""
        for member in self.members:
            member.check()


def start(servers, _quick):
    """Three gateways, and the rows for the first, the first two, and all of them."""
    sessions = list(django_rows.sessions(contenders.SESSIONS, servers.secret_key))
    postgres = databases.Postgres(servers)
    databases.fill(postgres, sessions)
    postgres.tidy()
    behind = programs.upstream(servers)
    gateways = [programs.gateway(servers, f"replica-{n}", behind, postgres.address) for n in COUNTS]
    keys = tuple(session.key for session in sessions[: contenders.VARIED])
    rows = []
    for count, name in COUNTS.items():
        group = Group(gateways[:count])
        rows.append(
            Contender(
                name,
                group.port,
                "/",
                "/echo",
                contenders.logged_in,
                proxy=group,
                database=postgres.server,
                keys=keys,
            )
        )
    return Field(rows, behind, postgres)


def client(servers, contender, connections, seconds):
    """A wrk for each gateway of the group, all at the same time; connections are each one's. What they saw together."""
    each = [replace(contender, port=member.port) for member in contender.proxy.members]
    started = [clients.started_wrk(servers, one, connections, seconds) for one in each]
    seen = [clients.finished(one, process) for one, process in zip(each, started)]
    return clients.Seen(
        sum(one.requests for one in seen),
        sum(one.not_200 for one in seen),
        sum(one.unanswered for one in seen),
        round(sum(one.requests_per_second for one in seen), 1),
        # Percentiles cannot be added: those of the slowest.
        *(max(getattr(one, name) for one in seen) for name in ("p50_ms", "p99_ms", "p999_ms")),
    )


def connections(field):
    """The connections that PostgreSQL has now for each of the three."""
    count = field.postgres.sql("SELECT count(*) - 1 FROM pg_stat_activity WHERE backend_type = 'client backend';")
    return int(count) / len(COUNTS)
