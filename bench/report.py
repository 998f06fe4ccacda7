"""The record as JSON and as tables for people."""

import json

import figures
import targets
from figures import NGINX, cost


def as_json(record):
    """The whole record, one measurement a line."""
    rounds = ",\n  ".join(json.dumps(row) for row in record["rounds"])
    head = json.dumps({name: value for name, value in record.items() if name != "rounds"}, indent=1)
    return head.removesuffix("\n}") + ',\n "rounds": [\n  ' + rounds + "\n ]\n}\n"


def markdown(record, picture):
    """Targets, and median and spread of every contender for each workload. `picture` is the plot's file, or None."""
    parts = [f"# {record['title']}, {record['date'][:10]}", _machine(record)]
    if record["quick"]:
        parts.append("A quick run: for a look, not for the record.")
    if record["busy"]:
        parts.append("**The machine was busy: see the end.**")
    if picture:
        parts.append(f"![CPU time for a request, as in the last table]({picture})")
    if judged := targets.judge(record):
        parts.append(_targets(judged))
    parts += [_table(record, workload) for workload in record["workloads"]]
    if "half_rate" in record:
        parts.append(_half_rate(record["half_rate"]))
    if "idle" in record:
        parts.append(_idle(record["idle"]))
    if "patches" in record:
        parts.append(_patches(record["patches"]))
    parts.append(_notes(record))
    return "\n\n".join(parts) + "\n"


def _machine(record):
    machine, tools = record["machine"], record["tools"]
    kind = "virtual machine" if machine["virtual"] else "machine"
    names = ("rustc", "nginx", "haproxy", "apache", "postgres", "oha", "python")
    packages = [package.replace("==", " ") for package in tools["packages"]]
    rounds = sorted({len(rows) for rows in _by_row(record).values()})
    return (
        f"{machine['cpu']}, {machine['cores']} cores of a {kind}, {machine['memory_mib'] / 1024:.0f} GiB, "
        f"{machine['system']}, Linux {machine['kernel']}, databases on {machine['file_system']}.\n"
        f"Commit {record['commit']}; {', '.join(tools[name] for name in names)}; {', '.join(packages)}.\n"
        f"{' or '.join(map(str, rounds))} rounds of {record['seconds']} s for every row, {record['sessions']}. "
        "Median (smallest–largest) of the rounds; CPU in µs a request, latencies in ms."
    )


def _by_row(record):
    by_row = {}
    for row in record["rounds"]:
        by_row.setdefault((row["workload"], row["contender"]), []).append(row)
    return by_row


def _targets(judged):
    columns = [figures.ONE, figures.MANY] if len(judged[0].measured) == 2 else ["measured"]
    lines = ["## Targets", "", f"| | target | {' | '.join(columns)} | |", f"|---|---|{'---|' * len(columns)}---|"]
    for one in judged:
        met = "met" if one.met else "**missed**"
        lines.append(f"| {one.words} | {one.target} | {' | '.join(one.measured)} | {met} |")
    return "\n".join(lines)


def _table(record, workload):
    lines = [
        f"## {workload[0].upper()}{workload[1:]}",
        "",
        "| | proxy | ÷ nginx | database | Python | sum | ÷ nginx | requests/s | p50 | p99 | p99.9 | MiB | rounds |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    rows = (_row(record, workload, name) for name in record["contenders"])
    return "\n".join([*lines, *filter(None, rows)])


def _row(record, workload, name):
    def of(figure):
        return figures.of(record, workload, name, figure)

    def median(figure, form):
        of_what = figures.spread(of(figure).values())
        return f"{of_what[0]:{form}}" if of_what else "–"

    def whole(figure, form):
        return figures.text(figures.spread(of(figure).values()), form)

    def divided(*what):
        own = of(lambda row: cost(row, *what))
        return figures.text(figures.spread(figures.ratios(own, nginx)), ".2f")

    nginx = figures.of(record, workload, NGINX, cost)
    speed = of(lambda row: row["requests_per_second"])
    if not speed:
        return None
    cells = [
        name,
        median(lambda row: cost(row, "proxy"), ".1f"),
        divided("proxy"),
        median(lambda row: cost(row, "database"), ".1f"),
        median(lambda row: cost(row, "python"), ",.0f"),
        median(cost, ",.1f"),
        divided(),
        whole(lambda row: row["requests_per_second"], ",.0f"),
        median(lambda row: row["p50_ms"], ",.2f"),
        whole(lambda row: row["p99_ms"], ",.2f"),
        median(lambda row: row["p999_ms"], ",.2f"),
        median(lambda row: row["memory_kib"] / 1024 if "memory_kib" in row else None, ".1f"),
        str(len(speed)),
    ]
    return f"| {' | '.join(cells)} |"


def _half_rate(half):
    lines = [
        f"## At half of the best rate: {half['rate']:,.0f} requests/s",
        "",
        f"{half['contender']}, and nginx at the same rate; {half['connections']} connections, one session.",
        "",
        "| pair | nginx p50 | p99 | gateway p50 | p99 | p99 ÷ nginx's |",
        "|--:|--:|--:|--:|--:|--:|",
    ]
    for number, pair in enumerate(half["pairs"], 1):
        of_each = [f"{pair[who + name]:.3f}" for who in ("nginx", "gateway") for name in ("_p50_ms", "_p99_ms")]
        ratio = pair["gateway_p99_ms"] / pair["nginx_p99_ms"]
        lines.append(f"| {number} | {' | '.join(of_each)} | {ratio:.2f} |")
    return "\n".join(lines)


def _idle(rows):
    lines = [
        f"## {rows[0]['connections']:,} idle connections",
        "",
        "Each was used once and is kept. Memory in MiB, after the same load without them.",
        "",
        "| | before | with them | KiB each | when they have gone | ÷ before | after s |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        cells = [f"{row['before_kib'] / 1024:.1f}", f"{row['with_kib'] / 1024:.1f}", f"{row['each_kib']:.2f}"]
        cells += [f"{row['after_kib'] / 1024:.1f}", f"{row['after_kib'] / row['before_kib']:.2f}"]
        lines.append(f"| {row['name']} | {' | '.join(cells)} | {row['after_seconds']:.0f} |")
    return "\n".join(lines)


def _patches(rows):
    lines = [
        "## Changes a second, beside what the database commits",
        "",
        "pgbench updates the same rows, one commit each, with as many clients. All on one CPU.",
        "",
        "| | connections | gateway | pgbench | ÷ pgbench |",
        "|---|--:|--:|--:|--:|",
    ]
    for row in rows:
        ratio = row["patches_per_second"] / row["commits_per_second"]
        cells = [row["rows"], row["connections"], f"{row['patches_per_second']:,.0f}"]
        lines.append(f"| {' | '.join(map(str, cells))} | {row['commits_per_second']:,.0f} | {ratio:.2f} |")
    return "\n".join(lines)


def _notes(record):
    rows = record["rounds"]
    notes = [
        f"Other work took {record['load_before']:.0%} of the machine before the run, and "
        f"{_share(rows, 'other_load')} during it; the hypervisor took {_share(rows, 'stolen')}."
    ]
    for name in record["contenders"]:
        own = [row for row in rows if row["contender"] == name]
        refused, unanswered, total = (
            sum(row[what] for row in own) for what in ("not_200", "unanswered", "requests")
        )
        if refused or unanswered:
            notes.append(f"{name}: {refused:,} of {total:,} answers were not 200, {unanswered:,} never came.")
    if "connections_each" in record:
        notes.append(f"Each gateway had {record['connections_each']:.0f} connections to PostgreSQL.")
    notes.append("How this is measured, and what it does not say, is in bench/README.md.")
    return "\n".join(notes)


def _share(rows, name):
    share = figures.spread(row[name] for row in rows)
    return f"{share[0]:.1%} (at most {share[2]:.1%})"
