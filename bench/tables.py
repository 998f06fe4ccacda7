"""What a request costs with few and with many rows in the table."""

import contenders
import databases
import django_rows
import programs
from contenders import Contender, Field

# So many different sessions are asked for, of all of these tables.
WANTED = 1_000
COUNTS = (1_000, 100_000, 10_000_000)

# A row in so many is one that is asked for; the others are of the same size.
ROWS = """
CREATE UNLOGGED TABLE {name} AS
SELECT coalesce(w.session_key, md5(every.number::text))::varchar(40) AS session_key,
    coalesce(w.session_data, repeat(md5(every.number::text), 10)) AS session_data,
    coalesce(w.expire_date, now() + interval '14 days') AS expire_date
FROM generate_series(1, {count}) AS every (number) LEFT JOIN wanted AS w ON w.number * {step} = every.number;
ALTER TABLE {name} ALTER session_key SET NOT NULL, ALTER session_data SET NOT NULL,
    ALTER expire_date SET NOT NULL, ADD PRIMARY KEY (session_key);
"""


def name(count):
    """The row of a table of so many sessions."""
    return f"gateway, PostgreSQL, {count:,} sessions"


def start(servers, quick):
    """nginx, and a gateway for each table, all tables in one PostgreSQL."""
    sessions = list(django_rows.sessions(WANTED, servers.secret_key))
    postgres = databases.Postgres(servers)
    columns = "number integer, session_key text, session_data text, expire_date timestamptz"
    wanted = ((number, row.key, row.data, row.expire_date.isoformat()) for number, row in enumerate(sessions, 1))
    postgres.sql(f"CREATE TABLE wanted ({columns});\n" + databases.copied("wanted", wanted))
    behind = programs.upstream(servers)
    keys = tuple(session.key for session in sessions)
    nginx = contenders.plain_nginx(servers, behind, keys)
    rows = []
    for count in COUNTS[: 2 if quick else 3]:
        table = f"rows_{count}.django_session"
        script = "SET maintenance_work_mem = '1GB';\n" + f"CREATE SCHEMA rows_{count};" + ROWS
        script = script.format(name=table, count=count, step=count // WANTED)
        postgres.sql(script + django_rows.INDEX.format(name=table) + django_rows.LIKE_INDEX.format(name=table))
        gateway = programs.gateway(servers, f"rows-{count}", behind, postgres.address, table=table)
        rows.append(
            Contender(
                name(count),
                gateway.port,
                "/",
                "/echo",
                contenders.logged_in,
                proxy=gateway,
                database=postgres.server,
                keys=keys,
            )
        )
    postgres.tidy()
    return Field([nginx, *rows], behind, postgres)
