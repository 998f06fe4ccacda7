"""Runs what sends the requests: oha with one session, wrk with many."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from servers import Failed, pinned

SCRIPT = Path(__file__).parent / "sessions.lua"
# Zipf's law: of 10,000 sessions the first hundred get half of the requests.
UNEVEN = 1


@dataclass(frozen=True)
class Seen:
    """What the client saw of one run."""

    requests: int
    not_200: int
    unanswered: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    p999_ms: float


def oha(servers, contender, connections, seconds, rate=None):
    """One session; with a rate, so many requests a second, late ones counted from when they were due."""
    command = [servers.programs.oha, "--no-tui", "--output-format", "json", "-z", f"{seconds}s"]
    # What is under way at the end is waited for, so that work and answers are of the same requests.
    command += ["--wait-ongoing-requests-after-deadline", "-c", connections]
    command += ["--worker-threads", len(servers.around)]
    if rate:
        command += ["-q", round(rate), "--latency-correction"]
    for name, value in contender.header.items():
        command += ["-H", f"{name}: {value}"]
    seen = json.loads(_run("oha", servers, [*command, _url(contender)]))
    answers = seen["statusCodeDistribution"]
    requests = sum(answers.values())
    if not requests:
        raise Failed(f"{contender.name}: no answers: {seen['errorDistribution']}")
    latency = seen["latencyPercentiles"]
    return Seen(
        requests,
        requests - answers.get("200", 0),
        sum(seen["errorDistribution"].values()),
        round(seen["summary"]["requestsPerSec"], 1),
        *(round(latency[name] * 1e3, 4) for name in ("p50", "p99", "p99.9")),
    )


def wrk(servers, contender, connections, seconds, exponent=UNEVEN):
    """Many sessions, drawn by Zipf's law with this exponent."""
    return finished(contender, started_wrk(servers, contender, connections, seconds, exponent))


def started_wrk(servers, contender, connections, seconds, exponent=UNEVEN):
    """The same, under way."""
    command = [servers.programs.wrk, "-t", min(len(servers.around), connections), "-c", connections]
    command += ["-d", f"{seconds}s", "--timeout", "10s"]
    command += ["-s", SCRIPT, _url(contender), "--", _key_file(servers, contender), exponent]
    pipe = subprocess.PIPE
    command = pinned(servers.around, command)
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True)


def finished(contender, process):
    """What a wrk saw that is waited for."""
    out, error = process.communicate()
    if process.returncode != 0:
        raise Failed(f"{contender.name}: wrk failed: {error}")
    seen = json.loads(out.splitlines()[-1])
    if not seen["requests"]:
        raise Failed(f"{contender.name}: no answers")
    return Seen(
        seen["requests"],
        seen["not_200"],
        seen["unanswered"],
        round(seen["requests"] / seen["seconds"], 1),
        *(seen[name] / 1e3 for name in ("p50_us", "p99_us", "p999_us")),
    )


def _key_file(servers, contender):
    # One file for those who have the same sessions.
    path = servers.folder / f"keys-{contender.keys[0] if contender.keys else 'none'}"
    if not path.exists():
        path.write_text("".join(f"{key}\n" for key in contender.keys))
    return path


def _url(contender):
    return f"http://127.0.0.1:{contender.port}{contender.path}"


def _run(name, servers, command):
    command = pinned(servers.around, command)
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise Failed(f"{name} failed: {done.stderr}")
    return done.stdout
