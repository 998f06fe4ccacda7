"""Changes of sessions a second through the gateway, beside what the database commits without it."""

import re

import clients
import databases
from servers import output, pinned

CONTENDER = "gateway, PostgreSQL, write"
CONNECTIONS = (1, 8, 64)
UPDATE = """
UPDATE django_session SET session_data = session_data, expire_date = now() + interval '14 days'
WHERE session_key = (SELECT key FROM written WHERE number = :number);
"""
SCRIPTS = {
    "different": "\\set number random(1, {count})" + UPDATE,
    "one": "\\set number 1" + UPDATE,
}


def measure(servers, field, quick):
    """A line for each number of connections, on different rows and on one."""
    contender = next(contender for contender in field.contenders if contender.name == CONTENDER)
    seconds = 1 if quick else 4
    script = "CREATE TABLE written (number integer PRIMARY KEY, key text);\n"
    field.postgres.sql(script + databases.copied("written", enumerate(contender.keys, 1)))
    rows = []
    for which, script in SCRIPTS.items():
        path = servers.new_folder(f"pgbench-{which}") / "script.sql"
        path.write_text(script.replace("{count}", str(len(contender.keys))))
        for connections in CONNECTIONS:
            field.postgres.tidy()
            if which == "one":
                seen = clients.oha(servers, contender, connections, seconds)
            else:
                seen = clients.wrk(servers, contender, connections, seconds, exponent=0)
            field.postgres.tidy()
            rows.append(
                {
                    "rows": f"{which} row{'s' if which == 'different' else ''}",
                    "connections": connections,
                    "patches_per_second": seen.requests_per_second,
                    "not_200": seen.not_200,
                    "commits_per_second": _commits(servers, field.postgres, path, connections, seconds),
                }
            )
    return rows


def _commits(servers, postgres, script, connections, seconds):
    command = [servers.programs.postgres_bin / "pgbench", "--no-vacuum", "--protocol=prepared", "--jobs=1"]
    command += [f"--client={connections}", f"--time={seconds}", f"--file={script}", postgres.address]
    said = output("pgbench", pinned(servers.around, command))
    return float(re.search(r"^tps = ([0-9.]+)", said, re.MULTILINE)[1])
