"""What a request costs with small and with large sessions."""

import contenders
import databases
import django_rows
import programs
from contenders import Contender, Field

# Of the session as JSON.
BYTES = {"100 B": 100, "1 KiB": 1 << 10, "4 KiB": 4 << 10, "16 KiB": 16 << 10, "64 KiB": 64 << 10}
EACH = 100
# Around the text: {"notes":""}
AROUND = 12


def name(size):
    """The row of a size."""
    return f"gateway, PostgreSQL, sessions of {size}"


def start(servers, _quick):
    """nginx, and the gateway with sessions of each size."""
    groups = {
        size: list(django_rows.sessions(EACH, servers.secret_key, count - AROUND)) for size, count in BYTES.items()
    }
    postgres = databases.Postgres(servers)
    databases.fill(postgres, [session for group in groups.values() for session in group])
    postgres.tidy()
    behind = programs.upstream(servers)
    gateway = programs.gateway(servers, "sizes", behind, postgres.address, token=1 << 20)
    rows = []
    for size, group in groups.items():
        contents = group[0].contents
        rows.append(
            Contender(
                name(size),
                gateway.port,
                "/",
                "/echo",
                lambda seen, contents=contents: seen["claims"]["session"] == contents,
                proxy=gateway,
                database=postgres.server,
                keys=tuple(session.key for session in group),
            )
        )
    return Field([contenders.plain_nginx(servers, behind, rows[0].keys), *rows], behind, postgres)
