"""Counts the gateway's instructions a request by valgrind's callgrind. bench/instructions calls this."""

import argparse
import collections
import datetime
import hashlib
import json
import os
import re
import selectors
import signal
import socket
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import databases
import django_rows
import programs
from servers import Failed, Servers

ROOT = Path(__file__).parent.parent
RECORD = ROOT / "bench/results/instructions.json"

# A change that is smaller may be chance; the record says how far repeated counts were apart.
NOTICED = 0.05

# How many requests are under way at any moment, and how many are counted. Alone each lookup is a statement of its
# own, so that counts repeat almost to the instruction; together many share one, and chance says how many.
LOADS = {"alone": (1, 300), "together": (32, 1600)}
WARM_UP = 500
REPEATS = 5

SESSIONS = 1000


@dataclass(frozen=True)
class Way:
    """A way of a request through the gateway."""

    name: str
    meaning: str
    gateway: str
    target: str
    cookie: bool


PATHS = [
    Way("off", 'session = "off"', "sqlite", "/off/", False),
    Way("nobody", "no cookie", "sqlite", "/", False),
    Way("sqlite", "SQLite, exact", "sqlite", "/", True),
    Way("postgres", "PostgreSQL, exact", "postgres", "/", True),
    Way("stale", 'PostgreSQL, max_staleness = "1s"', "stale", "/", True),
    Way("write", "PostgreSQL, a change with every request", "postgres", "/write", True),
]


def main():
    arguments = _arguments()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(130))
    # `--profile PATH | head` ends in silence.
    signal.signal(signal.SIGPIPE, lambda *_: os._exit(141))
    wanted = [arguments.profile] if arguments.profile else arguments.paths
    paths = [path for path in PATHS if not wanted or path.name in wanted]
    try:
        if arguments.profile:
            _profile(arguments, paths[0])
            return
        counted = _count(arguments, paths)
    except Failed as failed:
        sys.exit(f"bench/instructions: {failed}")
    recorded = json.loads(RECORD.read_text())["paths"] if RECORD.exists() else {}
    _print(counted, recorded)
    if arguments.check:
        _check(counted, recorded)
    elif not arguments.given and not arguments.paths:
        RECORD.write_text(json.dumps(_about(arguments) | {"paths": counted}, indent=1) + "\n")
        _say(f"written to {RECORD.relative_to(ROOT)}")


def _arguments():
    parser = argparse.ArgumentParser(prog="bench/instructions")
    names = [path.name for path in PATHS]
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--profile", choices=names)
    parser.add_argument("--inclusive", action="store_true")
    parser.add_argument("--given", action="store_true")
    for name in ("--gateway", "--nginx", "--postgres-bin"):
        parser.add_argument(name, type=lambda path: Path(path).resolve(), required=True)
    parser.add_argument("paths", nargs="*", choices=[*names, []], metavar="PATH")
    return parser.parse_args()


def _count(arguments, paths):
    """Instructions a request of each path: the median of some counts, the smallest and the largest."""
    counted = {}
    with Watched(arguments, paths) as watched:
        for path in paths:
            counted[path.name] = {}
            for load in LOADS:
                profiles = list(watched.profiles(path, load, REPEATS))
                counts = [profile.without_hashing() for profile in profiles]
                counted[path.name][load] = {
                    "instructions": round(statistics.median(counts)),
                    "smallest": round(min(counts)),
                    "largest": round(max(counts)),
                    "hashing": round(statistics.median(profile.hashing() for profile in profiles)),
                }
    return counted


def _print(counted, recorded):
    meanings = {path.name: path.meaning for path in PATHS}
    print(f"{'path':10}{'':9}{'a request':>10}{'spread':>8}{'record':>10}{'change':>8}{'SHA-256':>9}")
    for name, loads in counted.items():
        for load, count in loads.items():
            instructions = count["instructions"]
            spread = (count["largest"] - count["smallest"]) / instructions
            line = f"{name:10}{load:9}{instructions:>10,}{spread:>8.1%}"
            if before := recorded.get(name, {}).get(load):
                line += f"{before['instructions']:>10,}{instructions / before['instructions'] - 1:>+8.1%}"
            else:
                line += " " * 18
            print(f"{line}{count['hashing']:>9,}  {meanings[name]}")


def _check(counted, recorded):
    if not recorded:
        sys.exit("bench/instructions: there is no record to compare with")
    costlier = False
    for name, loads in counted.items():
        for load, count in loads.items():
            record = recorded[name][load]
            for what, of in (("instructions", "instructions"), ("hashing", "instructions of SHA-256")):
                now, before = count[what], record[what]
                if now > before * (1 + NOTICED):
                    costlier = True
                    _say(f"{name}, {load}: {now:,} {of} a request, {now / before - 1:.1%} more than {before:,}")
                elif now < before * (1 - NOTICED):
                    _say(f"{name}, {load}: {now:,} {of} a request, {1 - now / before:.1%} less than the record")
    if costlier:
        sys.exit(1)


def _profile(arguments, path):
    """Prints where the instructions of one path are spent."""
    with Watched(arguments, [path]) as watched:
        [profile] = watched.profiles(path, "together", 1)
    spent = profile.inclusive if arguments.inclusive else profile.own
    print(f"{path.meaning}: {profile.total():,.0f} instructions a request")
    for function, instructions in spent.most_common(80):
        print(f"{instructions:>9,.0f} {instructions / profile.total():>6.1%}  {function[:160]}")


class Profile:
    """Instructions a request by function, from a file of callgrind's.

    The format: https://valgrind.org/docs/manual/cl-format.html
    """

    def __init__(self, dump, requests):
        self.own = collections.Counter()
        # A function that calls itself is counted more than once.
        self.inclusive = collections.Counter()
        names = {}
        function, called = None, False
        for line in dump.read_text(errors="replace").splitlines():
            if named := re.match(r"(c?fn)=(\(\d+\))(?: (.*))?$", line):
                if named[3]:
                    names[named[2]] = named[3]
                if named[1] == "fn":
                    function = named[2]
            elif line.startswith("calls="):
                called = True
            elif cost := re.match(r"[-+*\d]\S* (\d+)$", line):
                instructions = int(cost[1]) / requests
                self.inclusive[function] += instructions
                # The line after a call has the cost of what was called.
                if not called:
                    self.own[function] += instructions
                called = False
        self.own = collections.Counter({names[key]: count for key, count in self.own.items()})
        self.inclusive = collections.Counter({names[key]: count for key, count in self.inclusive.items()})

    def total(self):
        """All of them."""
        return self.own.total()

    def hashing(self):
        """What the compression function of SHA-256 takes without the processor's help."""
        return sum(count for name, count in self.own.items() if name.startswith("sha2::sha256::compress"))

    def without_hashing(self):
        """All others."""
        return self.total() - self.hashing()


class Watched:
    """The gateways that some paths need, under callgrind, with what stands around them."""

    def __init__(self, arguments, paths):
        self._program = arguments.gateway
        self._programs = argparse.Namespace(nginx=arguments.nginx, postgres_bin=arguments.postgres_bin)
        self._servers = Servers(self._programs)
        self._paths = paths
        self._gateways = {}

    def __enter__(self):
        self._servers.__enter__()
        try:
            self._start()
        except BaseException:
            self._servers.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self._servers.__exit__()

    def profiles(self, path, load, count):
        """So many times: the gateway is asked, and what it executed meanwhile is told."""
        gateway = self._gateways[path.gateway]
        # Changes have a session of their own.
        key = self._keys[path.target == "/write"] if path.cookie else None
        connections, requests = LOADS[load]
        gateway.check()
        with Client(connections, gateway.port, path.target, key) as client:
            client.ask(WARM_UP, anything=True)
            for _ in range(count):
                self._tell(gateway, "zero")
                client.ask(requests)
                self._tell(gateway, "dump")
                gateway.check()
                [dump] = self._servers.folder.glob(f"callgrind.{gateway.pid}.*")
                yield Profile(dump, requests)
                dump.unlink()

    def _start(self):
        servers = self._servers
        # A program like any other for who starts it. glibc copies what is large by an instruction that callgrind
        # counts once a byte; not here.
        wrapper = servers.folder / "gateway-in-callgrind"
        wrapper.write_text(
            "#!/bin/sh\n"
            "export GLIBC_TUNABLES=glibc.cpu.x86_rep_movsb_threshold=1000000000\n"
            f"exec valgrind --tool=callgrind --callgrind-out-file={servers.folder}/callgrind.%p "
            f'--vgdb-prefix={servers.folder}/vgdb {self._program} "$@"\n'
        )
        wrapper.chmod(0o755)
        self._programs.gateway = wrapper
        sessions = list(django_rows.sessions(SESSIONS, servers.secret_key))
        self._keys = [session.key for session in sessions[:2]]
        upstream = programs.upstream(servers)
        needed = {path.gateway for path in self._paths}
        database = databases.sqlite(servers, sessions) if "sqlite" in needed else None
        postgres = self._postgres(sessions) if needed & {"postgres", "stale"} else None
        for name in sorted(needed):
            address = database if name == "sqlite" else postgres
            settings = {"verify": "user", "max_staleness": "1s" if name == "stale" else "0s"}
            self._gateways[name] = programs.gateway(servers, name, upstream, address, **settings)

    def _postgres(self, sessions):
        postgres = databases.Postgres(self._servers)
        databases.fill(postgres, sessions)
        postgres.tidy()
        return postgres.address

    def _tell(self, gateway, command):
        """A command to callgrind, which has been carried out afterwards."""
        prefix = f"--vgdb-prefix={self._servers.folder}/vgdb"
        # Its pipes have names that the environment is a part of: the gateway's has nothing but this.
        told = ["vgdb", prefix, f"--pid={gateway.pid}", command]
        done = subprocess.run(told, capture_output=True, text=True, env={"PATH": os.environ["PATH"]})
        if done.returncode != 0:
            raise Failed(f"callgrind does not listen: {done.stderr}")


class Client:
    """Kept connections, on each of which a request is under way until there were enough."""

    def __init__(self, connections, port, target, key):
        cookie = f"Cookie: sessionid={key}\r\n" if key else ""
        head = f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: */*\r\n{cookie}\r\n"
        self._request = head.encode()
        self._open = [socket.create_connection(("127.0.0.1", port)) for _ in range(connections)]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for connection in self._open:
            connection.close()

    def ask(self, requests, anything=False):
        """Sends so many requests and takes their answers, which must be good if not `anything` will do."""
        left = requests
        with selectors.DefaultSelector() as selector:
            for connection in self._open:
                connection.sendall(self._request)
                left -= 1
                selector.register(connection, selectors.EVENT_READ, bytearray())
            while selector.get_map():
                ready = selector.select(30)
                if not ready:
                    raise Failed("the gateway does not answer within 30 s")
                for key, _ in ready:
                    if not self._answered(key.fileobj, key.data, anything):
                        continue
                    if left:
                        left -= 1
                        key.fileobj.sendall(self._request)
                    else:
                        selector.unregister(key.fileobj)

    def _answered(self, connection, seen, anything):
        read = connection.recv(65536)
        seen += read
        head, end, body = bytes(seen).partition(b"\r\n\r\n")
        if not read or (end and not anything and not head.startswith(b"HTTP/1.1 200 ")):
            raise Failed(f"the gateway answers {bytes(seen).decode(errors='replace')}")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head) if end else None
        if not length or len(body) < int(length[1]):
            return False
        seen.clear()
        return True


def _about(arguments):
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": _commit(),
        "gateway_sha256": hashlib.sha256(arguments.gateway.read_bytes()).hexdigest(),
        "rustc": _output("rustc", "--version"),
        "valgrind": _output("valgrind", "--version"),
        "loads": {load: {"connections": of[0], "requests": of[1]} for load, of in LOADS.items()},
        "repeats": REPEATS,
    }


def _commit():
    commit = _output("git", "-C", ROOT, "rev-parse", "HEAD")
    changed = _output("git", "-C", ROOT, "status", "--porcelain", "--", "src", "Cargo.toml", "Cargo.lock")
    return f"{commit} with changes" if changed and commit != "unknown" else commit


def _output(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    except OSError:
        return "unknown"
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def _say(sentence):
    print(f"bench/instructions: {sentence}", file=sys.stderr)


if __name__ == "__main__":
    main()
