"""Measures contenders in turn, round by round."""

import resource
import time
from dataclasses import asdict, dataclass
from typing import Callable

import clients
import machine
from figures import MANY, ONE
from servers import Failed


@dataclass(frozen=True)
class Workload:
    """How a contender is asked, in how many rounds, and in how many where it is slow."""

    name: str
    connections: int
    client: Callable
    rounds: int
    slow_rounds: int
    seconds: int
    # Whether those who write take part.
    writes: bool = True


def workloads(quick):
    """One session with oha, at 1, 64 and 256 connections; many sessions with wrk, at 64."""
    # The two by which the gateway is judged have more rounds, where time is short.
    judged, others, seconds = ((2, 1), (1, 1), 1) if quick else ((5, 3), (5, 3), 3)
    return [
        Workload("1 connection, one session", 1, clients.oha, *others, seconds),
        Workload(ONE, 64, clients.oha, *judged, seconds),
        # Of one session the gateway lets 128 changes wait, and refuses more.
        Workload("256 connections, one session", 256, clients.oha, *others, seconds, writes=False),
        Workload(MANY, 64, clients.wrk, *judged, seconds),
    ]


def measure_all(servers, field, loads, say):
    """Every contender under every workload, in turns. A list of measurements."""
    for contender in field.contenders:
        # Warm: connections are made, statements prepared.
        loads[-1].client(servers, contender, loads[-1].connections, 1)
        _settle(contender)
    rows = []
    for number in range(max(load.rounds for load in loads)):
        say(f"round {number + 1} of {max(load.rounds for load in loads)}")
        # Nobody always comes after the same neighbour.
        turn = number * 5 % len(field.contenders)
        for load in loads:
            for contender in field.contenders[turn:] + field.contenders[:turn]:
                if number < _rounds(load, contender):
                    row = {"round": number + 1, "workload": load.name, "contender": contender.name}
                    rows.append(row | measure(servers, contender, load, field.upstream))
                    if contender.writes and contender.database:
                        field.postgres.tidy()
    return rows


def _rounds(load, contender):
    if contender.writes and not load.writes:
        return 0
    return load.slow_rounds if contender.slow else load.rounds


def measure(servers, contender, load, upstream):
    """One measurement: what the client saw, and the CPU time that everybody used while it ran."""
    working = contender.paid_by | {"upstream": upstream}
    before = {what: server.cpu_seconds() for what, server in working.items()}
    client_before, machine_before = _children_seconds(), machine.machine_seconds()
    seen = load.client(servers, contender, load.connections, load.seconds)
    used = {what: server.cpu_seconds() - before[what] for what, server in working.items()}
    used["client"] = _children_seconds() - client_before
    busy, stolen, everything = (b - a for a, b in zip(machine_before, machine.machine_seconds()))
    row = asdict(seen) | {
        "cpu_us": {what: round(seconds / seen.requests * 1e6, 3) for what, seconds in used.items()},
        "other_load": round((busy - sum(used.values())) / everything, 4),
        "stolen": round(stolen / everything, 4),
    }
    if contender.proxy:
        row["memory_kib"] = contender.proxy.memory_kib()
        contender.proxy.forget_log()
    for server in working.values():
        server.check()
    _settle(contender)
    return row


def _settle(contender):
    """Waits until requests that nobody waits for any more are done, so that the next one does not pay for them."""
    until = time.monotonic() + 10
    servers = contender.paid_by.values()
    used = sum(server.cpu_seconds() for server in servers)
    while time.monotonic() < until:
        time.sleep(0.03)
        before, used = used, sum(server.cpu_seconds() for server in servers)
        if used - before < 0.002:
            return
    raise Failed(f"{contender.name} is still busy 10 s after its last request")


def _children_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
