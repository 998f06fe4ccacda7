"""What a run can be about: the contenders, or the gateway under what may make it slower."""

from dataclasses import dataclass
from typing import Callable

import clients
import contenders
import half_rate
import idle
import patches
import replicas
import rounds
import sizes
import tables


def _nothing_more(*_):
    return {}


@dataclass(frozen=True)
class Kind:
    """How a run is made."""

    title: str
    sessions: str
    # Of Servers and whether it is quick: the Field.
    start: Callable
    # Of whether it is quick: the workloads.
    loads: Callable
    # After the rounds, what else the record has.
    more: Callable = _nothing_more


def _compared(servers, field, rows, quick, say):
    say("latency at half of the best rate")
    half = half_rate.measure(servers, field, rows, quick)
    say("changes a second")
    changes = patches.measure(servers, field, quick)
    say("idle connections")
    return {"half_rate": half, "patches": changes, "idle": idle.measure(servers, field, quick)}


def _bytes(*_):
    return {"bytes": list(sizes.BYTES.values())}


def _connections(_servers, field, *_):
    return {"connections_each": replicas.connections(field)}


def _one_workload(name, client):
    def loads(quick):
        count, seconds = (3, 1) if quick else (5, 3)
        return [rounds.Workload(name, 64, client, count, count, seconds)]

    return loads


KINDS = {
    "contenders": Kind(
        "What a request costs",
        f"{contenders.SESSIONS:,} sessions in each database",
        contenders.start,
        rounds.workloads,
        _compared,
    ),
    "tables": Kind(
        "What a request costs with large tables",
        f"tables of up to {tables.COUNTS[-1]:,} sessions",
        tables.start,
        _one_workload(f"64 connections, {tables.WANTED:,} sessions of the table", clients.wrk),
    ),
    "sizes": Kind(
        "What a request costs with large sessions",
        f"{sizes.EACH} sessions of each size",
        sizes.start,
        _one_workload(f"64 connections, {sizes.EACH} sessions of each size", clients.wrk),
        _bytes,
    ),
    "replicas": Kind(
        "What a request costs with several gateways on one database",
        f"{contenders.SESSIONS:,} sessions",
        replicas.start,
        _one_workload("64 connections for each gateway, 10,000 sessions", replicas.client),
        _connections,
    ),
}
