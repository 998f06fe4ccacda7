"""What is promised, and whether it is kept: ratios of one run."""

from dataclasses import dataclass

import figures
from figures import MANY, NGINX, ONE, cost


@dataclass(frozen=True)
class Target:
    """One sentence, and the ratio that it is about: a contender's cost divided by another one's."""

    words: str
    above: str
    below: str
    # Of the one above; of the one below it is always all.
    paid: tuple[str, ...]
    at_most: float | None = None
    at_least: float | None = None

    def kept(self, measured):
        """Whether a ratio is within it."""
        return measured <= self.at_most if self.at_most else measured >= self.at_least


PROXY, ALL = ("proxy",), figures.PAID
TARGETS = [
    Target("sessions off ÷ nginx", "gateway, sessions off", NGINX, PROXY, 1.1),
    Target("SQLite ÷ nginx", "gateway, SQLite", NGINX, PROXY, 1.5),
    Target("PostgreSQL ÷ nginx, the gateway alone", "gateway, PostgreSQL", NGINX, PROXY, 1.4),
    Target("PostgreSQL ÷ nginx, with the database", "gateway, PostgreSQL", NGINX, ALL, 2.0),
    Target("user check ÷ nginx, the gateway alone", "gateway, PostgreSQL, user check", NGINX, PROXY, 1.7),
    Target("user check ÷ nginx, with the database", "gateway, PostgreSQL, user check", NGINX, ALL, 2.5),
    Target("max_staleness 1s ÷ nginx", "gateway, PostgreSQL, max_staleness 1s", NGINX, PROXY, 1.2),
    Target(
        "auth_request to Django ÷ user check",
        "nginx, auth_request to Django",
        "gateway, PostgreSQL, user check",
        ALL,
        at_least=60,
    ),
    Target(
        "Starlette, async-django-session ÷ PostgreSQL",
        "Starlette, async-django-session",
        "gateway, PostgreSQL",
        ALL,
        at_least=15,
    ),
    Target(
        "Apache, mod_session_dbd ÷ PostgreSQL", "Apache, mod_session_dbd", "gateway, PostgreSQL", ALL, at_least=3
    ),
    Target("Django's save ÷ PostgreSQL, write", "Django, write", "gateway, PostgreSQL, write", ALL, at_least=10),
]


@dataclass(frozen=True)
class Judged:
    """A line of the table: what was aimed at, what was measured, in words, and whether it was met."""

    words: str
    target: str
    measured: list[str]
    met: bool


# So much may grow what must not grow.
GROWTH = 1.2


def judge(record):
    """Every target of which there are figures in a record."""
    judged = []
    for target in TARGETS:
        measured = [_ratio(record, workload, target) for workload in (ONE, MANY)]
        if all(measured):
            bound = f"at most {target.at_most}" if target.at_most else f"at least {target.at_least}"
            form = ".2f" if target.at_most else ".1f"
            met = all(target.kept(median) for median, _, _ in measured)
            judged.append(Judged(target.words, bound, [figures.text(one, form) for one in measured], met))
    return judged + list(_others(record))


def _ratio(record, workload, target):
    above = figures.of(record, workload, target.above, lambda row: cost(row, *target.paid))
    below = figures.of(record, workload, target.below, cost)
    return figures.spread(figures.ratios(above, below))


def _others(record):
    if half := record.get("half_rate"):
        ratios = figures.spread(pair["gateway_p99_ms"] / pair["nginx_p99_ms"] for pair in half["pairs"])
        words = "p99 ÷ nginx's, both at half of the gateway's best rate"
        yield Judged(words, "at most 1.5", [figures.text(ratios, ".2f"), ""], ratios[0] <= 1.5)
    for row in record.get("idle", ()):
        if row["target_kib"]:
            words = f"an idle connection, {row['name']}"
            met = row["each_kib"] <= row["target_kib"]
            yield Judged(words, f"at most {row['target_kib']} KiB", [f"{row['each_kib']:.1f} KiB", ""], met)
            back = row["after_kib"] / row["before_kib"]
            words = f"{row['name']}: memory when {row['connections']:,} have gone ÷ before they came"
            yield Judged(words, "at most 1.2", [f"{back:.2f}", ""], back <= 1.2)
    if record["kind"] == "tables":
        yield from _same_cost(record)
    if record["kind"] == "sizes":
        yield _linear(record)


def _same_cost(record):
    """The largest table costs what the smaller ones cost."""
    workload, (_, *smaller, largest) = record["workloads"][0], record["contenders"]
    above = figures.of(record, workload, largest, cost)
    for name in smaller:
        ratio = figures.spread(figures.ratios(above, figures.of(record, workload, name, cost)))
        words = f"{largest} ÷ {name}"
        yield Judged(words, f"at most {GROWTH}", [figures.text(ratio, ".2f")], ratio[0] <= GROWTH)


def _linear(record):
    """A further KiB costs no more in the largest sessions than in those before."""
    workload = record["workloads"][0]
    kib = [count / 1024 for count in record["bytes"]]
    costs = [
        figures.spread(figures.of(record, workload, name, cost).values())[0] for name in record["contenders"][1:]
    ]
    # Up to 4 KiB what does not depend on the size is most of it.
    last = (costs[-1] - costs[-2]) / (kib[-1] - kib[-2])
    before = (costs[-2] - costs[-3]) / (kib[-2] - kib[-3])
    words = f"µs for a further KiB up to {kib[-1]:.0f} KiB ÷ up to {kib[-2]:.0f} KiB"
    measured = f"{last / before:.2f} ({last:.2f} and {before:.2f} µs)"
    return Judged(words, f"at most {GROWTH}", [measured], last / before <= GROWTH)
