"""What is made of measurements: costs, ratios within a round, medians and spreads. No input or output."""

import statistics

NGINX = "nginx, plain proxy"
# The two workloads that others are judged by.
ONE, MANY = "64 connections, one session", "64 connections, 10,000 sessions"
# Who is paid for by whom is counted: the service behind and the client are not.
PAID = ("proxy", "database", "python")


def cost(row, *what):
    """CPU of some of those who work for a contender, in µs a request; without names of all of them. Or None."""
    paid = [row["cpu_us"][name] for name in what or PAID if name in row["cpu_us"]]
    return sum(paid) if paid else None


def of(record, workload, contender, figure):
    """A figure of a contender, by round; `figure` makes it of a measurement, None where there is none."""
    rows = (row for row in record["rounds"] if (row["workload"], row["contender"]) == (workload, contender))
    return {row["round"]: value for row in rows if (value := figure(row)) is not None}


def ratios(above, below):
    """What is one figure divided by another in the same round."""
    return [value / below[number] for number, value in above.items() if below.get(number)]


def spread(values):
    """(median, smallest, largest), or None of nothing."""
    values = list(values)
    return (statistics.median(values), min(values), max(values)) if values else None


def text(of_what, form):
    """A spread in words: `1.23 (1.10–1.40)`."""
    if not of_what:
        return "–"
    median, smallest, largest = of_what
    if smallest == largest:
        return f"{median:{form}}"
    return f"{median:{form}} ({smallest:{form}}–{largest:{form}})"
