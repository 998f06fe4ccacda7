import copy
import enum
import json
import random
import unittest
from collections import OrderedDict
from datetime import datetime, timezone
from typing import Any, Callable

from session_gateway_upstream import BadSessionChange, Session, SessionClosed, SessionWithheld
from support import KNOWN, NOBODY, TOO_LARGE, USER, sent, session

UNKNOWN = ("off", "unreadable", "unavailable", "of the future")


def of(data: dict[str, Any]) -> Session:
    return session({**USER, "session": data})


class Mapping(unittest.TestCase):
    def test_it_is_used_like_a_dict(self) -> None:
        opened = of({"a": 1, "b": None, "c": [1, {"d": 2}]})
        self.assertEqual(opened["a"], 1)
        self.assertIsNone(opened["b"])
        self.assertEqual(len(opened), 3)
        self.assertEqual(list(opened), ["a", "b", "c"])
        self.assertEqual(dict(opened), {"a": 1, "b": None, "c": [1, {"d": 2}]})
        self.assertEqual(opened, {"a": 1, "b": None, "c": [1, {"d": 2}]})
        self.assertIn("a", opened)
        self.assertNotIn("x", opened)
        self.assertEqual(opened.get("x", 7), 7)
        with self.assertRaises(KeyError):
            opened["x"]
        with self.assertRaises(KeyError):
            del opened["x"]
        self.assertEqual(opened.pop("a"), 1)
        opened.update(e=5)
        self.assertEqual(opened.setdefault("e", 6), 5)
        opened.clear()
        self.assertFalse(opened)

    def test_numbers_keep_their_value(self) -> None:
        big = 123456789012345678901234567890
        opened = of({"big": [big], "half": 0.5, "one": 1.0})
        self.assertEqual(opened["big"], [big])
        self.assertIsInstance(opened["one"], float)
        opened["big"].append(-big)
        self.assertEqual(sent(opened), {"set": {"big": [big, -big]}})

    def test_what_came_with_the_request_stays_what_it_was(self) -> None:
        opened = session({**USER, "user": {"groups": ["staff"]}})
        self.assertEqual(opened.expires_at, datetime.fromtimestamp(4_000_000_000, timezone.utc))
        user = opened.user
        assert user is not None
        user["groups"].append("admins")
        opened["cart"].append("pen")
        opened.claims["session"]["cart"].append("x")
        self.assertEqual(opened.user, {"groups": ["staff"]})
        self.assertEqual(opened.claims["session"], {"cart": ["book"], "lang": "fr"})
        opened.flush()
        self.assertEqual((opened.user_id, opened.sid, opened.rev), ("42", "sid-1", "rev-1"))

    def test_nobody_has_an_empty_session_and_no_name(self) -> None:
        opened = session(NOBODY)
        self.assertEqual(dict(opened), {})
        for name in ("user_id", "user", "sid", "rev", "expires_at", "withheld"):
            self.assertIsNone(getattr(opened, name))


class Changes(unittest.TestCase):
    def test_nothing_is_sent_when_nothing_changed(self) -> None:
        data = {"a": 1, "b": [1, {"c": [2.5, None, True]}], "d": {"x": 1, "y": 2}, "n": 10**25}
        for use in (
            lambda s: None,
            lambda s: dict(s),
            lambda s: s.update(dict(s)),
            lambda s: s.update(copy.deepcopy(dict(s))),
            lambda s: s.__setitem__("d", {"y": 2, "x": 1}),
            lambda s: s.__setitem__("b", (1, {"c": (2.5, None, True)})),
            lambda s: (s["b"].append(1), s["b"].pop()),
            lambda s: s.__setitem__("a", s.pop("a")),
            lambda s: (s.__setitem__("new", 1), s.pop("new")),
            lambda s: s.setdefault("b", []),
            lambda s: s.get("x"),
            lambda s: s.only_if_unchanged(),
        ):
            opened = of(data)
            use(opened)
            self.assertIsNone(sent(opened))

    def test_only_what_changed_is_sent(self) -> None:
        data = {"a": 1, "b": [1, {"c": [2]}], "d": {"x": 1}, "e": "keep", "f": [0]}
        changes: list[tuple[Callable[[Session], Any], Any]] = [
            (lambda s: s.__setitem__("a", 2), {"set": {"a": 2}}),
            (lambda s: s.__setitem__("a", 1.0), {"set": {"a": 1.0}}),
            (lambda s: s.__setitem__("a", True), {"set": {"a": True}}),
            (lambda s: s.__setitem__("a", "1"), {"set": {"a": "1"}}),
            (lambda s: s.__setitem__("a", None), {"set": {"a": None}}),
            (lambda s: s.__setitem__("new", None), {"set": {"new": None}}),
            (lambda s: s["b"].append(3), {"set": {"b": [1, {"c": [2]}, 3]}}),
            (lambda s: s["b"][1]["c"].append(3), {"set": {"b": [1, {"c": [2, 3]}]}}),
            (lambda s: s["d"].pop("x"), {"set": {"d": {}}}),
            (lambda s: next(iter(s.values())) and s["d"].clear(), {"set": {"d": {}}}),
            (lambda s: dict(s)["f"].append(1), {"set": {"f": [0, 1]}}),
            (lambda s: s.setdefault("list", []).append(1), {"set": {"list": [1]}}),
            (lambda s: s.pop("a"), {"del": ["a"]}),
            (lambda s: (s.pop("a"), s.pop("e")), {"del": ["a", "e"]}),
            (lambda s: (s.pop("a"), s.__setitem__("a", 3)), {"set": {"a": 3}}),
            (lambda s: (s["f"].append(1), s.__setitem__("f", [5])), {"set": {"f": [5]}}),
            (lambda s: (s["f"].append(1), s.pop("f")), {"del": ["f"]}),
            (lambda s: s.cycle_key(), {"cycle": True}),
            (lambda s: s.touch(), {}),
            (lambda s: (s.touch(), s.pop("a")), {"del": ["a"]}),
            (lambda s: s.set_expiry(60), {"expiry": 60}),
            (lambda s: s.set_expiry(0), {"expiry": 0}),
            (lambda s: s.set_expiry(None), {"expiry": None}),
            (lambda s: s.flush(), {"flush": True}),
            (lambda s: (s.flush(), s.flush()), {"flush": True}),
            (lambda s: (s.cycle_key(), s.set_expiry(9), s.flush()), {"flush": True}),
            (lambda s: (s.flush(), s.cycle_key()), {"flush": True}),
            (lambda s: (s.flush(), s.__setitem__("a", 1)), {"flush": True, "set": {"a": 1}}),
            (
                lambda s: (s.__setitem__("a", 5), s.flush(), s.__setitem__("e", "keep")),
                {"flush": True, "set": {"e": "keep"}},
            ),
            (lambda s: (s.flush(), s.set_expiry(9)), {"flush": True, "expiry": 9}),
            (
                lambda s: (s.only_if_unchanged(), s.__setitem__("a", 2)),
                {"set": {"a": 2}, "if": "rev-1"},
            ),
            (lambda s: (s.only_if_unchanged(), s.touch()), {"if": "rev-1"}),
            (lambda s: (s.only_if_unchanged(), s.flush()), {"flush": True, "if": "rev-1"}),
        ]
        for number, (change, field) in enumerate(changes):
            with self.subTest(number, field=field):
                opened = of(data)
                change(opened)
                found = sent(opened)
                self.assertEqual(found, field)
                # 1, 1.0 and true are three values.
                self.assertEqual(json.dumps(found), json.dumps(field))

    def test_a_value_that_was_assigned_and_changed_afterwards_is_sent_as_it_is_at_the_end(
        self,
    ) -> None:
        opened = of({"a": 1})
        cart: list[Any] = []
        opened["cart"] = cart
        cart.append("book")
        opened["cart"].append("pen")
        self.assertEqual(sent(opened), {"set": {"cart": ["book", "pen"]}})

    def test_after_a_flush_a_list_of_the_old_session_changes_nothing(self) -> None:
        opened = of({"cart": ["book"]})
        cart = opened["cart"]
        opened.flush()
        cart.append("pen")
        self.assertEqual(dict(opened), {})
        self.assertEqual(sent(opened), {"flush": True})

    def test_any_run_of_changes_is_told_as_the_difference_between_both_ends(self) -> None:
        """The field, applied to what came, gives what the handler saw at the end; and no less
        would do."""
        random_ = random.Random(6)

        def value(depth: int = 0) -> Any:
            kind = random_.randrange(7 if depth < 3 else 5)
            return [
                lambda: random_.choice([0, 1, -1, 10**20]),
                lambda: random_.choice([0.0, 1.0, 0.1]),
                lambda: random_.choice(["", "a", "é\u2028", "\U0001f600"]),
                lambda: random_.choice([True, False]),
                lambda: None,
                lambda: [value(depth + 1) for _ in range(random_.randrange(3))],
                lambda: {random_.choice("xyz"): value(depth + 1) for _ in range(2)},
            ][kind]()

        def mutate(found: Any) -> None:
            if isinstance(found, list) and found and random_.random() < 0.5:
                mutate(random_.choice(found))
            elif isinstance(found, list):
                found.append(value(2))
            elif isinstance(found, dict):
                found[random_.choice("xyz")] = value(2)

        def spelt(found: Any) -> str:
            return json.dumps(found, sort_keys=True)

        for _ in range(2000):
            before = {key: value() for key in random_.sample("abcdef", 4)}
            opened = of(before)
            for _ in range(random_.randrange(6)):
                key = random_.choice("abcdef")
                act = random_.randrange(4)
                if act == 0:
                    opened[key] = value()
                elif act == 1:
                    opened.pop(key, None)
                elif act == 2 and key in opened:
                    mutate(opened[key])
                elif key in before:
                    opened[key] = copy.deepcopy(before[key])
            after = dict(opened)
            field = sent(opened)
            if spelt(after) == spelt(before):
                self.assertIsNone(field)
                continue
            stored = copy.deepcopy(before)
            for key in field.get("del", []):
                self.assertIn(key, stored)
                del stored[key]
            for key, new in field.get("set", {}).items():
                self.assertFalse(key in before and spelt(before[key]) == spelt(new))
                stored[key] = new
            self.assertEqual(spelt(stored), spelt(after))

    def test_the_field_is_ascii_without_line_ends(self) -> None:
        opened = of({})
        opened["name"] = "José 日本 \U0001f600\r\n\x7f"
        field = opened._close(200, False)
        assert field is not None
        self.assertTrue(field.isascii() and field.isprintable(), field)
        self.assertEqual(json.loads(field)["set"]["name"], "José 日本 \U0001f600\r\n\x7f")


class BadChanges(unittest.TestCase):
    def test_what_json_cannot_carry_is_refused_at_the_assignment(self) -> None:
        deep: Any = []
        for _ in range(30):
            deep = [deep]
        loop: list[Any] = []
        loop.append(loop)
        for bad in (
            float("nan"),
            float("inf"),
            [{"a": float("-inf")}],
            10**309,
            -(10**5000),
            "\ud800",
            "nul \0",
            {"\udfff": 1},
            {"\0": 1},
            {1: "a"},
            {None: 1},
            {("a",): 1},
            deep,
            loop,
            {1, 2},
            b"bytes",
            datetime.now(timezone.utc),
            object(),
            [Ellipsis],
        ):
            opened = of({"a": 1})
            with self.assertRaises(BadSessionChange) as caught:
                opened["a"] = bad
            self.assertIn("'a'", str(caught.exception))
            self.assertEqual(dict(opened), {"a": 1})
            self.assertIsNone(sent(opened))

    def test_what_json_can_just_carry_is_sent(self) -> None:
        class Level(enum.IntEnum):
            HIGH = 3

        deep: Any = []
        for _ in range(29):
            deep = [deep]
        opened = of({})
        opened.update(
            {"deep": deep, "big": 10**308, "level": Level.HIGH, "o": OrderedDict(a=1), "t": (1, 2)}
        )
        self.assertEqual(
            sent(opened),
            {"set": {"deep": deep, "big": 10**308, "level": 3, "o": {"a": 1}, "t": [1, 2]}},
        )

    def test_what_became_bad_in_place_is_refused_at_the_end_as_a_whole(self) -> None:
        for spoil in (
            lambda s: s["list"].append(float("nan")),
            lambda s: s["list"].append({1: 2}),
            lambda s: s["list"].append(s["list"]),
            lambda s: s["list"].append(object()),
            lambda s: s["list"].append("\ud800"),
        ):
            opened = of({"list": []})
            opened["good"] = 1
            spoil(opened)
            for _ in range(2):
                with self.assertRaises(BadSessionChange):
                    opened._close(200, False)
            # What is repaired may be sent.
            opened["list"] = [1]
            self.assertEqual(sent(opened), {"set": {"good": 1, "list": [1]}})

    def test_a_deep_value_that_was_only_read_is_no_change(self) -> None:
        deep: Any = []
        for _ in range(50):
            deep = [deep]
        opened = of({"deep": deep})
        self.assertEqual(opened["deep"], deep)
        self.assertIsNone(sent(opened))

    def test_keys_that_belong_to_django_and_keys_that_are_no_texts_cannot_be_set(self) -> None:
        opened = session(USER)
        for key in ("_auth_user_id", "_", "a\0", "\ud800", 1, None):
            with self.subTest(key), self.assertRaises(BadSessionChange):
                opened[key] = 1  # type: ignore[index]
        self.assertIsNone(sent(opened))
        opened = session(TOO_LARGE)
        with self.assertRaises(BadSessionChange):
            del opened["_auth_user_id"]

    def test_a_key_that_belongs_to_django_cannot_be_changed_in_place_or_deleted(self) -> None:
        opened = of({"_x": []})
        with self.assertRaises(BadSessionChange):
            del opened["_x"]
        opened["_x"].append(1)
        with self.assertRaises(BadSessionChange):
            opened._close(200, False)

    def test_a_field_over_16_kib_is_refused(self) -> None:
        around = len('{"set":{"a":""}}')
        opened = of({})
        opened["a"] = "x" * (16_384 - around)
        self.assertEqual(len(opened._close(200, False) or ""), 16_384)
        opened = of({})
        opened["a"] = "x" * (16_385 - around)
        with self.assertRaises(BadSessionChange) as caught:
            opened._close(200, False)
        self.assertEqual(caught.exception.code, "x-session-set-too-large")

    def test_set_expiry_takes_seconds_only(self) -> None:
        opened = session(USER)
        for bad in (-1, True, 1.5, "60", 2**53):
            with self.subTest(bad), self.assertRaises(BadSessionChange):
                opened.set_expiry(bad)  # type: ignore[arg-type]
        self.assertIsNone(sent(opened))

    def test_only_if_unchanged_needs_a_rev(self) -> None:
        with self.assertRaises(BadSessionChange):
            session({**KNOWN, "withheld": "not_json"}).only_if_unchanged()

    def test_a_visitor_without_a_session_gets_one_from_a_guarded_change(self) -> None:
        opened = session(NOBODY)
        opened.only_if_unchanged()
        opened["cart"] = ["book"]
        self.assertEqual(sent(opened), {"set": {"cart": ["book"]}})

    def test_a_field_set_by_hand_stays_unless_the_session_changed_too(self) -> None:
        self.assertIsNone(sent(session(USER), has_own=True))
        for change in (lambda s: s.__setitem__("a", 1), lambda s: s.touch()):
            opened = session(USER)
            change(opened)
            with self.assertRaises(BadSessionChange) as caught:
                opened._close(200, True)
            self.assertEqual(caught.exception.code, "x-session-set-twice")


class Withheld(unittest.TestCase):
    def test_contents_that_are_not_told_are_never_empty(self) -> None:
        for visitor in (TOO_LARGE, {**KNOWN, "withheld": "not_json"}):
            opened = session(visitor)
            self.assertEqual((opened.user_id, opened.sid), ("42", "sid-1"))
            self.assertIn(str(opened.withheld), repr(opened))
            self.reads_raise(opened)

    def test_columns_of_the_user_that_are_not_told_are_never_none(self) -> None:
        for visitor in (TOO_LARGE, {**KNOWN, "withheld": "not_json"}):
            with self.assertRaises(SessionWithheld):
                _ = session(visitor).user
            told = session({**visitor, "user": {"username": "jo"}})
            self.assertEqual(told.user, {"username": "jo"})
            told.flush()
            self.assertEqual(told.user, {"username": "jo"})
        self.assertIsNone(session(USER).user)

    def reads_raise(self, opened: Session) -> None:
        for read in (
            lambda: opened["cart"],
            lambda: opened.get("cart"),
            lambda: "cart" in opened,
            lambda: len(opened),
            lambda: bool(opened),
            lambda: list(opened),
            lambda: dict(opened),
            lambda: {**opened},
            lambda: opened == {},
            lambda: opened.items() and list(opened.items()),
            lambda: opened.setdefault("cart", []),
            lambda: opened.pop("cart", None),
            lambda: opened.clear(),
        ):
            with self.assertRaises(SessionWithheld):
                read()

    def test_contents_that_are_not_told_can_be_set_and_deleted(self) -> None:
        opened = session(TOO_LARGE)
        opened["a"] = [1]
        opened["a"].append(2)
        self.assertEqual(opened["a"], [1, 2])
        self.assertIn("a", opened)
        del opened["b"]
        self.assertNotIn("b", opened)
        with self.assertRaises(KeyError):
            opened["b"]
        with self.assertRaises(KeyError):
            del opened["b"]
        opened["c"] = 1
        del opened["c"]
        del opened["d"]
        opened["d"] = 4
        with self.assertRaises(SessionWithheld):
            opened["x"]
        opened.only_if_unchanged()
        self.assertEqual(
            sent(opened), {"set": {"a": [1, 2], "d": 4}, "del": ["b", "c"], "if": "rev-1"}
        )

    def test_after_a_flush_the_session_is_known_to_be_empty(self) -> None:
        opened = session(TOO_LARGE)
        del opened["a"]
        opened.flush()
        self.assertEqual(dict(opened), {})
        opened["b"] = 1
        self.assertEqual(sent(opened), {"flush": True, "set": {"b": 1}})

    def test_where_nobody_knows_who_is_calling_everything_raises(self) -> None:
        for why in UNKNOWN:
            opened = session({"withheld": why})
            self.assertEqual(opened.withheld, why)
            self.assertEqual(opened.claims["withheld"], why)
            self.reads_raise(opened)
            for name in ("user_id", "user", "sid", "rev", "expires_at"):
                with self.assertRaises(SessionWithheld):
                    getattr(opened, name)
            for change in (
                lambda s: s.__setitem__("a", 1),
                lambda s: s.__delitem__("a"),
                lambda s: s.flush(),
                lambda s: s.cycle_key(),
                lambda s: s.set_expiry(1),
                lambda s: s.touch(),
                lambda s: s.only_if_unchanged(),
            ):
                with self.assertRaises(SessionWithheld):
                    change(opened)
            self.assertIsNone(sent(opened))


class Closed(unittest.TestCase):
    def test_a_change_after_the_head_raises(self) -> None:
        opened = of({"a": 1, "list": []})
        self.assertIsNone(sent(opened))
        for change in (
            lambda s: s.__setitem__("a", 1),
            lambda s: s.__delitem__("a"),
            lambda s: s.pop("a"),
            lambda s: s.clear(),
            lambda s: s.update(a=1),
            lambda s: s.flush(),
            lambda s: s.cycle_key(),
            lambda s: s.set_expiry(1),
            lambda s: s.touch(),
            lambda s: s.only_if_unchanged(),
        ):
            with self.assertRaises(SessionClosed):
                change(opened)
        self.assertEqual(dict(opened), {"a": 1, "list": []})

    def test_a_change_in_place_after_the_head_is_found(self) -> None:
        mine: list[Any] = []
        for change, lost in (
            (lambda s: None, []),
            (lambda s: s["list"], []),
            (lambda s: s["list"].append(1), ["list"]),
            (lambda s: s["held"].append(1), ["held"]),
            (lambda s: mine.append(1), ["mine"]),
        ):
            opened = of({"list": [], "held": [], "deleted": []})
            opened["held"].append(0)
            opened["deleted"].append(0)
            del opened["deleted"]
            opened["mine"] = mine
            sent(opened)
            change(opened)
            self.assertEqual(opened._lost(), lost)

    def test_errors_store_nothing_and_are_never_in_the_way(self) -> None:
        for status in (500, 503, 599):
            opened = of({})
            opened["large"] = "x" * 20_000
            self.assertIsNone(sent(opened, status))
            self.assertIsNone(sent(session(USER), status, has_own=True))

    def test_every_other_status_carries_the_change(self) -> None:
        for status in (101, 200, 204, 303, 304, 404, 499):
            opened = of({})
            opened["a"] = 1
            self.assertEqual(sent(opened, status), {"set": {"a": 1}})
            # A head that takes the place of the first, as in WSGI with exc_info.
            self.assertEqual(sent(opened, 400), {"set": {"a": 1}})
            self.assertIsNone(sent(opened, 500))

    def test_an_error_that_is_replaced_by_another_head_has_closed_the_session_already(self) -> None:
        opened = of({"list": [], "b": []})
        opened["list"].append(1)
        self.assertIsNone(sent(opened, 500))
        with self.assertRaises(SessionClosed):
            opened["a"] = 1
        opened["list"].append(2)
        self.assertEqual(opened._lost(), ["list"])
        # What was changed in place until the head that counts is in it.
        opened["b"].append(1)
        self.assertEqual(sent(opened, 404), {"set": {"list": [1, 2], "b": [1]}})
        self.assertEqual(opened._lost(), [])
        opened["b"].append(2)
        self.assertEqual(opened._lost(), ["b"])


if __name__ == "__main__":
    unittest.main()
