"""The latency of the gateway and of nginx at one and the same rate: half of the best that the gateway can do."""

import statistics

import clients
import figures

CONTENDER = "gateway, PostgreSQL"
CONNECTIONS = 64


def measure(servers, field, rows, quick):
    """Interleaved pairs. `rows` are the measurements so far, which say what the best rate is."""
    by_name = {contender.name: contender for contender in field.contenders}
    own = [row for row in rows if (row["workload"], row["contender"]) == (figures.ONE, CONTENDER)]
    best = [row["requests_per_second"] for row in own]
    rate = statistics.median(best) / 2
    pairs = []
    for _ in range(2 if quick else 5):
        pair = {}
        for who, name in (("nginx", figures.NGINX), ("gateway", CONTENDER)):
            seen = clients.oha(servers, by_name[name], CONNECTIONS, 2 if quick else 5, rate)
            pair |= {f"{who}_requests_per_second": seen.requests_per_second}
            pair |= {f"{who}_p50_ms": seen.p50_ms, f"{who}_p99_ms": seen.p99_ms, f"{who}_p999_ms": seen.p999_ms}
        pairs.append(pair)
    return {"contender": CONTENDER, "connections": CONNECTIONS, "rate": round(rate), "pairs": pairs}
