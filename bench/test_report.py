"""What is made of a record, without measuring: tests/run runs these."""

import ast
import unittest
import xml.etree.ElementTree
from pathlib import Path

import figures
import plot
import report
import targets
from figures import MANY, NGINX, ONE, cost

CHECKING = "gateway, PostgreSQL, user check"
DJANGO = "nginx, auth_request to Django"


def measurement(number, contender, workload=ONE, **cpu_us):
    """One line of a record."""
    return {
        "round": number,
        "workload": workload,
        "contender": contender,
        "requests": 1000,
        "not_200": 0,
        "unanswered": 0,
        "requests_per_second": 1000.0 * number,
        "p50_ms": 1.0,
        "p99_ms": 2.0,
        "p999_ms": 3.0,
        "cpu_us": {**cpu_us, "upstream": 1000.0, "client": 1000.0},
        "memory_kib": 2048,
        "other_load": 0.01,
        "stolen": 0.0,
    }


def record(rounds, **more):
    """A record of these lines."""
    tools = dict.fromkeys(("rustc", "nginx", "haproxy", "apache", "postgres", "oha", "python"), "a tool")
    return {
        "date": "2026-01-02T03:04:05+00:00",
        "kind": "contenders",
        "title": "What a request costs",
        "quick": False,
        "busy": False,
        "commit": "unknown",
        "machine": {
            "cpu": "a processor",
            "cores": 2,
            "virtual": True,
            "memory_mib": 1024,
            "kernel": "6",
            "system": "Debian",
            "file_system": "ext4",
        },
        "load_before": 0.0,
        "tools": {**tools, "packages": ["Django==5.2"]},
        "sessions": "ten sessions",
        "seconds": 1,
        "contenders": list(dict.fromkeys(row["contender"] for row in rounds)),
        "workloads": list(dict.fromkeys(row["workload"] for row in rounds)),
        "rounds": rounds,
        **more,
    }


def whole():
    """Two rounds of three contenders under the workloads by which they are judged."""
    rounds = []
    for workload in (ONE, MANY):
        for number, nginx in ((1, 10.0), (2, 20.0)):
            rounds.append(measurement(number, NGINX, workload, proxy=nginx))
            rounds.append(measurement(number, CHECKING, workload, proxy=1.6 * nginx, database=nginx))
            of_django = {"proxy": 10 * nginx, "database": 5 * nginx, "python": 89 * nginx}
            rounds.append(measurement(number, DJANGO, workload, **of_django))
    return record(rounds)


class Figures(unittest.TestCase):
    def test_only_those_who_work_for_a_contender_are_paid(self):
        row = measurement(1, "one", proxy=2.0, database=3.0)
        self.assertEqual(cost(row), 5.0)
        self.assertEqual(cost(row, "proxy"), 2.0)
        self.assertIsNone(cost(row, "python"))

    def test_ratios_are_of_the_same_round(self):
        self.assertEqual(figures.ratios({1: 3.0, 2: 8.0, 3: 1.0}, {1: 1.0, 2: 2.0}), [3.0, 4.0])

    def test_a_spread_is_median_smallest_and_largest(self):
        self.assertEqual(figures.text(figures.spread([3, 1, 2]), ".1f"), "2.0 (1.0–3.0)")
        self.assertEqual(figures.text(figures.spread([3]), ".1f"), "3.0")
        self.assertEqual(figures.text(figures.spread([]), ".1f"), "–")


class Targets(unittest.TestCase):
    def test_what_was_measured_is_judged_and_nothing_else(self):
        judged = {one.words: one for one in targets.judge(whole())}
        alone = judged["user check ÷ nginx, the gateway alone"]
        self.assertEqual(alone.measured, ["1.60", "1.60"])
        self.assertTrue(alone.met)
        self.assertFalse(judged["user check ÷ nginx, with the database"].met, "2.6 is more than 2.5")
        # 104 divided by 2.6.
        django = judged["auth_request to Django ÷ user check"]
        self.assertEqual((django.measured, django.met), (["40.0", "40.0"], False))
        self.assertEqual(len(judged), 3)

    def test_one_workload_that_misses_is_a_miss(self):
        made = whole()
        for row in made["rounds"]:
            if (row["workload"], row["contender"]) == (MANY, CHECKING):
                row["cpu_us"]["proxy"] *= 2
        judged = {one.words: one for one in targets.judge(made)}
        self.assertFalse(judged["user check ÷ nginx, the gateway alone"].met)

    def test_latency_and_memory_are_judged(self):
        pair = {f"{who}_{name}_ms": 1.0 for who in ("nginx", "gateway") for name in ("p50", "p99")}
        half = {"contender": CHECKING, "connections": 64, "rate": 1000, "pairs": [pair | {"gateway_p99_ms": 1.4}]}
        idle = {
            "name": "gateway",
            "connections": 8000,
            "before_kib": 1000,
            "with_kib": 101000,
            "each_kib": 12.5,
            "after_kib": 1100,
            "after_seconds": 1.0,
            "target_kib": 12,
        }
        made = whole() | {"half_rate": half, "idle": [idle]}
        self.assertEqual([one.met for one in targets.judge(made)][-3:], [True, False, True])
        self.assertIn("12.50", report.markdown(made, None))

    def test_tables_are_judged_by_the_largest(self):
        rounds = [measurement(1, NGINX, proxy=10.0)]
        rounds += [
            measurement(1, name, proxy=30.0, database=db) for name, db in (("1", 10.0), ("2", 5.0), ("3", 15.0))
        ]
        judged = targets.judge(record(rounds, kind="tables"))
        self.assertEqual([one.measured for one in judged], [["1.12"], ["1.29"]])
        self.assertEqual([one.met for one in judged], [True, False])

    def test_sizes_may_cost_in_proportion(self):
        costs = zip(("0", "1", "2"), (10.0, 20.0, 70.0), strict=True)
        rounds = [measurement(1, NGINX, proxy=10.0), *(measurement(1, name, proxy=us) for name, us in costs)]
        made = record(rounds, kind="sizes", bytes=[0, 10 * 1024, 60 * 1024])
        self.assertEqual(
            [(one.measured, one.met) for one in targets.judge(made)], [(["1.00 (1.00 and 1.00 µs)"], True)]
        )
        made["rounds"][-1]["cpu_us"]["proxy"] = 120.0
        self.assertFalse(targets.judge(made)[0].met)


class Report(unittest.TestCase):
    def test_the_table_has_every_row_and_the_targets(self):
        table = report.markdown(whole(), "a.svg")
        self.assertIn("| auth_request to Django ÷ user check | at least 60 | 40.0 | 40.0 | **missed** |", table)
        self.assertIn(f"| {CHECKING} | 24.0 | 1.60 | 15.0 | – | 39.0 | 2.60 | 1,500 (1,000–2,000) |", table)
        self.assertIn("![", table)

    def test_what_was_refused_is_said(self):
        made = whole()
        made["rounds"][0]["not_200"] = 7
        self.assertIn("7 of 4,000 answers were not 200", report.markdown(made, None))

    def test_the_plot_is_xml_with_a_bar_for_each_row(self):
        picture = plot.svg(whole(), MANY)
        xml.etree.ElementTree.fromstring(picture)
        for name in (NGINX, CHECKING, DJANGO):
            self.assertIn(name, picture)


class Sources(unittest.TestCase):
    def test_all_of_it_is_python(self):
        files = list(Path(__file__).parent.rglob("*.py"))
        self.assertGreater(len(files), 15)
        for file in files:
            ast.parse(file.read_text(), file.name)


if __name__ == "__main__":
    unittest.main()
