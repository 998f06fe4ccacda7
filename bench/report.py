"""The record as JSON and as a table for people."""

import json
import statistics


def as_json(record):
    """The whole record, one measurement a line."""
    rounds = ",\n  ".join(json.dumps(row) for row in record["rounds"])
    head = json.dumps({name: value for name, value in record.items() if name != "rounds"}, indent=1)
    return head.removesuffix("\n}") + ',\n "rounds": [\n  ' + rounds + "\n ]\n}\n"


def markdown(record):
    """Median and spread of every contender, for each number of connections."""
    parts = [f"# What a request costs, {record['date'][:10]}", _machine(record)]
    if record["quick"]:
        parts.append("A quick run: for a look, not for the record.")
    if record["busy"]:
        parts.append("**The machine was busy: see the end.**")
    for connections in sorted({row["connections"] for row in record["rounds"]}):
        parts.append(_table(record, connections))
    parts.append(_notes(record))
    return "\n\n".join(parts) + "\n"


def _machine(record):
    machine, tools = record["machine"], record["tools"]
    kind = "virtual machine" if machine["virtual"] else "machine"
    rounds = record["rounds"][-1]["round"]
    return (
        f"{machine['cpu']}, {machine['cores']} cores of a {kind}, {machine['memory_mib'] / 1024:.0f} GiB, "
        f"{machine['system']}, Linux {machine['kernel']}, databases on {machine['file_system']}.\n"
        f"Commit {record['commit']}; {tools['rustc']}, {tools['nginx'].removeprefix('nginx version: ')}, "
        f"{tools['postgres']}, {tools['oha']}.\n"
        f"{rounds} rounds of {record['seconds']} s for every row, {record['sessions']:,} sessions in each "
        "database. Median (smallest–largest) of the rounds; CPU in µs a request."
    )


def _table(record, connections):
    rows = [row for row in record["rounds"] if row["connections"] == connections]
    nginx = {row["round"]: row["cpu_us"]["proxy"] for row in rows if row["contender"] == record["nginx"]}
    lines = [
        f"## {connections} connection{'s' if connections > 1 else ''}",
        "",
        "| | proxy CPU | ÷ nginx | database CPU | requests/s | p50 ms | p99 ms |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name in record["contenders"]:
        own = [row for row in rows if row["contender"] == name]
        proxy = [row["cpu_us"]["proxy"] for row in own if "proxy" in row["cpu_us"]]
        ratio = [row["cpu_us"]["proxy"] / nginx[row["round"]] for row in own if "proxy" in row["cpu_us"]]
        database = [row["cpu_us"]["database"] for row in own if "database" in row["cpu_us"]]
        cells = [
            _spread(proxy, ".1f"),
            _spread(ratio, ".2f"),
            _spread(database, ".1f"),
            _spread([row["requests_per_second"] for row in own], ",.0f"),
            _spread([row["p50_ms"] for row in own], ".3f"),
            _spread([row["p99_ms"] for row in own], ".3f"),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values, form):
    if not values:
        return "–"
    return f"{statistics.median(values):{form}} ({min(values):{form}}–{max(values):{form}})"


def _notes(record):
    rows = record["rounds"]
    notes = [
        f"Other work took {record['load_before']:.0%} of the machine before the run, and "
        f"{_share(rows, 'other_load')} during it; the hypervisor took {_share(rows, 'stolen')}."
    ]
    for name in record["contenders"]:
        own = [row for row in rows if row["contender"] == name]
        answers = [answer for row in own for answer in row["answers"].items()]
        refused = sum(count for status, count in answers if status != "200")
        # oha counts what is under way when its time is over as an error.
        errors = [error for row in own for error in row["errors"].items() if "deadline" not in error[0]]
        unanswered = sum(count for _, count in errors)
        if refused or unanswered:
            total = sum(count for _, count in answers)
            notes.append(f"{name}: {refused:,} of {total:,} answers were not 200, {unanswered:,} never came.")
    notes.append("How this is measured, and what it does not say, is in bench/README.md.")
    return "\n".join(notes)


def _share(rows, name):
    shares = [row[name] for row in rows]
    return f"{statistics.median(shares):.1%} (at most {max(shares):.1%})"
