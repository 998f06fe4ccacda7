"""Measures every contender in turn, round by round, and writes the record. bench/run calls this."""

import argparse
import base64
import datetime
import hashlib
import hmac
import http.client
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import django_rows
import machine
import report
from servers import Failed, Server, Servers

ROOT = Path(__file__).parent.parent
SESSIONS = 100_000
CONNECTIONS = (1, 64)
QUIET = 0.15


@dataclass(frozen=True)
class Contender:
    """One row of the table: a way to the upstream, and who pays for it."""

    name: str
    port: int
    path: str
    # Of the claims in X-Session, or of None where there is none: whether they are as they must be.
    expected: Callable[[dict | None], bool]
    proxy: Server | None = None
    database: Server | None = None
    cookie: str | None = None

    @property
    def header(self):
        return {"cookie": f"sessionid={self.cookie}"} if self.cookie else {}


def main():
    arguments = _arguments()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(130))
    load = machine.load(2)
    if load >= QUIET:
        _say(f"other work takes {load:.0%} of this machine, {QUIET:.0%} is too much")
        if not arguments.anyway:
            sys.exit("bench/run: wait until it is quiet, or measure all the same with --anyway")
    try:
        record = _measure(arguments, load)
    except Failed as failed:
        sys.exit(f"bench/run: {failed}")
    folder = ROOT / ("target/bench" if arguments.quick else "bench/results")
    folder.mkdir(parents=True, exist_ok=True)
    table = report.markdown(record)
    path = folder / f"{record['date'][:10]}.json"
    path.write_text(report.as_json(record))
    path.with_suffix(".md").write_text(table)
    print(table)
    _say(f"written to {path.relative_to(ROOT)} and .md")


def _arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--anyway", action="store_true")
    parser.add_argument("--given", action="store_true")
    for name in ("--gateway", "--oha", "--nginx", "--postgres-bin"):
        parser.add_argument(name, type=lambda path: Path(path).resolve(), required=True)
    return parser.parse_args()


def _measure(arguments, load):
    started = datetime.datetime.now(datetime.timezone.utc)
    rounds, seconds = (5, 1) if arguments.quick else (7, 4)
    with Servers(arguments) as servers:
        _say(f"making {SESSIONS} sessions in each database")
        contenders, upstream = _contenders(servers)
        record = {
            "date": started.isoformat(timespec="seconds"),
            "quick": arguments.quick,
            "commit": "unknown, a given binary" if arguments.given else _commit(),
            "machine": machine.description(servers.folder),
            "load_before": round(load, 3),
            "tools": _tools(arguments),
            "sessions": SESSIONS,
            "seconds": seconds,
            "cpus": {"measured": servers.measured, "around": servers.around},
            "contenders": [contender.name for contender in contenders],
            "nginx": next(contender.name for contender in contenders if contender.proxy),
        }
        for contender in contenders:
            _check(contender, servers.token_key)
        for contender in contenders:
            _run(contender, upstream, servers, arguments.oha, CONNECTIONS[-1], 1)
        record["rounds"] = []
        for number in range(rounds):
            _say(f"round {number + 1} of {rounds}")
            # Nobody always comes after the same neighbour.
            order = contenders[number % len(contenders) :] + contenders[: number % len(contenders)]
            for connections in CONNECTIONS:
                for contender in order:
                    row = {"round": number + 1, "connections": connections, "contender": contender.name}
                    row |= _run(contender, upstream, servers, arguments.oha, connections, seconds)
                    record["rounds"].append(row)
        for contender in contenders:
            _check(contender, servers.token_key)
    # What is quiet before need not stay so.
    during = statistics.median(row["other_load"] for row in record["rounds"])
    record["busy"] = max(load, during) >= QUIET
    record["minutes"] = round((datetime.datetime.now(datetime.timezone.utc) - started).seconds / 60, 1)
    return record


def _contenders(servers):
    rows = list(django_rows.sessions(SESSIONS, servers.secret_key))
    # Sessions of their own for those that write, so that what the others read stays as it is.
    read, write_1, write_2 = (row[0] for row in rows[:3])
    sqlite = servers.sqlite(rows)
    postgres, postgres_address = servers.postgres(rows)
    upstream = servers.upstream()
    nginx = servers.proxy(upstream)
    quiet = "info,access=off"
    on_sqlite = servers.gateway("gateway-sqlite", upstream, sqlite, quiet)
    on_postgres = servers.gateway("gateway-postgres", upstream, postgres_address, quiet)
    in_postgres = (on_postgres, postgres)
    late_sqlite = servers.gateway("gateway-late-sqlite", upstream, sqlite, quiet, "1s")
    late_postgres = servers.gateway("gateway-late-postgres", upstream, postgres_address, quiet, "1s")
    late_in_postgres = (late_postgres, postgres)
    logging = servers.gateway("gateway-logging", upstream, postgres_address, "info")

    def nothing(claims):
        return claims is None

    def off(claims):
        return claims and claims.get("withheld") == "off" and not claims.keys() & {"sub", "sid", "session"}

    def logged_in(claims):
        known = claims and claims.get("sub") == str(django_rows.USER) and "sid" in claims
        return known and len(claims["session"]["cart"]) == 4

    def nobody(claims):
        return claims and claims.get("session") == {} and not claims.keys() & {"sub", "sid"}

    return [
        Contender("upstream itself", upstream.port, "/", nothing),
        Contender("nginx, plain proxy", nginx.port, "/", nothing, nginx),
        Contender('gateway, session = "off"', on_sqlite.port, "/off/", off, on_sqlite),
        Contender("gateway, SQLite", on_sqlite.port, "/", logged_in, on_sqlite, None, read),
        Contender("gateway, PostgreSQL", on_postgres.port, "/", logged_in, *in_postgres, read),
        Contender("gateway, SQLite, max_staleness", late_sqlite.port, "/", logged_in, late_sqlite, None, read),
        Contender("gateway, PostgreSQL, max_staleness", late_postgres.port, "/", logged_in, *late_in_postgres, read),
        Contender("gateway, PostgreSQL, access log", logging.port, "/", logged_in, logging, postgres, read),
        Contender("gateway, PostgreSQL, no cookie", on_postgres.port, "/", nobody, *in_postgres),
        Contender("gateway, SQLite, write", on_sqlite.port, "/write", logged_in, on_sqlite, None, write_1),
        Contender("gateway, PostgreSQL, write", on_postgres.port, "/write", logged_in, *in_postgres, write_2),
    ], upstream


def _check(contender, token_key):
    """Fails unless the contender answers, hands on the right claims, and stores what the upstream changes."""
    _get(contender, contender.path)
    # The echo beside the measured path.
    echo = contender.path.rpartition("/")[0] + "/echo"
    claims = _claims(_get(contender, echo), token_key)
    if not contender.expected(claims):
        raise Failed(f"{contender.name}: the upstream got {claims}")
    if contender.path == "/write":
        before = claims["session"]["seen"]
        _get(contender, contender.path)
        if _claims(_get(contender, echo), token_key)["session"]["seen"] == before:
            raise Failed(f"{contender.name}: the change was not stored")


def _get(contender, path):
    connection = http.client.HTTPConnection("127.0.0.1", contender.port, timeout=10)
    connection.request("GET", path, headers=contender.header)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    if response.status != 200:
        raise Failed(f"{contender.name}: {path} answers {response.status}: {body.decode(errors='replace')}")
    return body.decode()


def _claims(token, key):
    if not token:
        return None
    signed, _, mac = token.rpartition(".")
    if not hmac.compare_digest(hmac.digest(key.encode(), signed.encode(), "sha256"), _base64(mac)):
        raise Failed("an X-Session is not signed with the key of the upstream")
    return json.loads(_base64(signed.partition(".")[2]))


def _base64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _run(contender, upstream, servers, oha, connections, seconds):
    """One measurement: what oha saw, and the CPU time that everybody used while it ran."""
    paid_by = {"proxy": contender.proxy, "database": contender.database, "upstream": upstream}
    before = {name: server.cpu_seconds() for name, server in paid_by.items() if server}
    oha_before, machine_before = _children_seconds(), machine.machine_seconds()

    command = ["taskset", "--cpu-list", ",".join(map(str, servers.around)), oha, "--no-tui"]
    command += ["--output-format", "json", "-z", f"{seconds}s", "-c", str(connections)]
    for name, value in contender.header.items():
        command += ["-H", f"{name}: {value}"]
    command.append(f"http://127.0.0.1:{contender.port}{contender.path}")
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)

    busy, stolen, everything = (b - a for a, b in zip(machine_before, machine.machine_seconds()))
    used = {name: paid_by[name].cpu_seconds() - seconds_before for name, seconds_before in before.items()}
    used["oha"] = _children_seconds() - oha_before
    if done.returncode != 0:
        raise Failed(f"{contender.name}: oha failed: {done.stderr}")
    for server in filter(None, paid_by.values()):
        server.check()
    if contender.proxy:
        os.truncate(contender.proxy.log, 0)
    seen = json.loads(done.stdout)
    answers = seen["statusCodeDistribution"]
    requests = sum(answers.values())
    if not requests:
        raise Failed(f"{contender.name}: no answers: {seen['errorDistribution']}")
    return {
        "requests": requests,
        "answers": answers,
        "errors": seen["errorDistribution"],
        "requests_per_second": round(seen["summary"]["requestsPerSec"], 1),
        "p50_ms": round(seen["latencyPercentiles"]["p50"] * 1e3, 4),
        "p99_ms": round(seen["latencyPercentiles"]["p99"] * 1e3, 4),
        "cpu_us": {name: round(value / requests * 1e6, 3) for name, value in used.items()},
        "other_load": round((busy - sum(used.values())) / everything, 4),
        "stolen": round(stolen / everything, 4),
    }


def _children_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _commit():
    commit = _output("git", "-C", ROOT, "rev-parse", "HEAD")
    changed = _output("git", "-C", ROOT, "status", "--porcelain", "--", "src", "Cargo.toml", "Cargo.lock")
    return f"{commit} with changes" if changed and commit != "unknown" else commit


def _tools(arguments):
    return {
        "gateway": _output(arguments.gateway, "--version"),
        "gateway_sha256": hashlib.sha256(arguments.gateway.read_bytes()).hexdigest(),
        "rustc": _output("rustc", "--version"),
        "nginx": _output(arguments.nginx, "-v"),
        "postgres": _output(arguments.postgres_bin / "postgres", "--version"),
        "oha": _output(arguments.oha, "--version"),
        "python": sys.version.partition(" ")[0],
    }


def _output(*command):
    try:
        # nginx tells its version on standard error.
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
    except OSError:
        return "unknown"
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def _say(sentence):
    print(f"bench/run: {sentence}", file=sys.stderr)


if __name__ == "__main__":
    main()
