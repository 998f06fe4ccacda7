"""Makes the record: starts what takes part, measures it, and writes the result. bench/run calls this."""

import argparse
import datetime
import hashlib
import signal
import statistics
import subprocess
import sys
from pathlib import Path

import answers
import machine
import plot
import report
import rounds
from kinds import KINDS
from servers import Failed, Servers

ROOT = Path(__file__).parent.parent
QUIET = 0.15


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
    print(_write(record, ROOT / ("target/bench" if arguments.quick else "bench/results")))


def _write(record, folder):
    folder.mkdir(parents=True, exist_ok=True)
    name = record["date"][:10] + ("" if record["kind"] == "contenders" else f"-{record['kind']}")
    path = folder / f"{name}.json"
    path.write_text(report.as_json(record))
    # The last of the workloads is the one that is most like a site's.
    path.with_suffix(".svg").write_text(plot.svg(record, record["workloads"][-1]))
    table = report.markdown(record, f"{name}.svg")
    path.with_suffix(".md").write_text(table)
    _say(f"written to {path.relative_to(ROOT)}, .md and .svg")
    return table


def _arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--anyway", action="store_true")
    parser.add_argument("--given", action="store_true")
    parser.add_argument("--pingora", type=Path)
    kind = parser.add_mutually_exclusive_group()
    for name in KINDS:
        kind.add_argument(f"--{name}", dest="kind", action="store_const", const=name, default="contenders")
    # Not resolved: a Python's link says which environment it is of.
    parser.add_argument("--python", type=Path, required=True)
    for name in ("--gateway", "--oha", "--wrk", "--nginx", "--haproxy", "--apache", "--postgres-bin"):
        parser.add_argument(name, type=lambda path: Path(path).resolve(), required=True)
    return parser.parse_args()


def _measure(arguments, load):
    started = datetime.datetime.now(datetime.timezone.utc)
    kind = KINDS[arguments.kind]
    loads = kind.loads(arguments.quick)
    with Servers(arguments) as servers:
        _say(f"starting everything, with {kind.sessions}")
        field = kind.start(servers, arguments.quick)
        record = {
            "date": started.isoformat(timespec="seconds"),
            "kind": arguments.kind,
            "title": kind.title,
            "quick": arguments.quick,
            "commit": "unknown, a given binary" if arguments.given else _commit(),
            "machine": machine.description(servers.folder),
            "load_before": round(load, 3),
            "tools": _tools(arguments),
            "sessions": kind.sessions,
            "cpus": {"measured": servers.measured, "around": servers.around},
            "contenders": [contender.name for contender in field.contenders],
            "workloads": [load.name for load in loads],
            "seconds": loads[0].seconds,
        }
        for contender in field.contenders:
            answers.check(contender, servers.token_key)
        record["rounds"] = rounds.measure_all(servers, field, loads, _say)
        record |= kind.more(servers, field, record["rounds"], arguments.quick, _say)
        for contender in field.contenders:
            answers.check(contender, servers.token_key)
    # What is quiet before need not stay so.
    during = statistics.median(row["other_load"] for row in record["rounds"])
    record["busy"] = max(load, during) >= QUIET
    record["minutes"] = round((datetime.datetime.now(datetime.timezone.utc) - started).seconds / 60, 1)
    return record


def _commit():
    commit = _output("git", "-C", ROOT, "rev-parse", "HEAD")
    changed = _output("git", "-C", ROOT, "status", "--porcelain", "--", "src", "Cargo.toml", "Cargo.lock")
    return f"{commit} with changes" if changed and commit != "unknown" else commit


def _tools(arguments):
    packages = _output(arguments.python, "-m", "pip", "freeze", "--disable-pip-version-check")
    return {
        "gateway": _output(arguments.gateway, "--version"),
        "gateway_sha256": hashlib.sha256(arguments.gateway.read_bytes()).hexdigest(),
        "rustc": _output("rustc", "--version"),
        "nginx": _output(arguments.nginx, "-v").removeprefix("nginx version: "),
        "haproxy": _output(arguments.haproxy, "-v").partition(" 20")[0],
        "apache": _output(arguments.apache, "-v").partition("\n")[0].removeprefix("Server version: "),
        "postgres": _output(arguments.postgres_bin / "postgres", "--version"),
        "oha": _output(arguments.oha, "--version"),
        "python": _output(arguments.python, "--version"),
        "packages": packages.split("\n"),
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
