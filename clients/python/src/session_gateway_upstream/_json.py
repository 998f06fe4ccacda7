"""JSON as both sides of the contract take it: strict when read, plain ASCII when written."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from ._errors import BadSessionChange

# The field may nest 32 deep; a value stands inside two objects of it.
MAX_NESTING = 30


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name stands twice in an object")
    return members


def _constant(_name: str) -> NoReturn:
    raise ValueError("not JSON")


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number beyond a double's range")
    return number


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_constant, parse_float=_float)


def strict_object(text: bytes) -> dict[str, Any]:
    """The JSON object that `text` is.

    Raises ValueError for anything else, also for a name that stands twice.
    """
    try:
        value = _DECODER.decode(text.decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004 - one kind of failure for callers
    return value


def spelling(value: Any) -> str | None:
    """One text for all spellings of a JSON value; None for what is no JSON."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError):
        return None


def encoded(value: Any) -> str:
    """ASCII JSON without blanks, of a value that `check` let pass."""
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise BadSessionChange("the change is no JSON") from None


def check(name: str, value: Any) -> None:
    """Raise BadSessionChange if `value` cannot stand in the session under `name`."""
    why = _problem(value, 0)
    if why is not None:
        raise BadSessionChange(f"session[{name!r}] cannot be stored: {why}")


def text_problem(text: str) -> str | None:
    """Why this text cannot stand in a session, if it cannot."""
    if "\0" in text:
        return "U+0000 in a text"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "half a surrogate pair in a text"
    return None


def _problem(value: Any, nesting: int) -> str | None:
    if value is None or isinstance(value, bool):
        why = None
    elif isinstance(value, str):
        why = text_problem(value)
    elif isinstance(value, (int, float)):
        why = _number_problem(value)
    elif isinstance(value, (list, tuple, dict)):
        why = _container_problem(value, nesting + 1)
    else:
        why = f"a {type(value).__name__} is no JSON"
    return why


def _number_problem(value: float) -> str | None:
    try:
        finite = math.isfinite(value)
    except OverflowError:
        finite = False
    return None if finite else "a number beyond a double's range"


def _container_problem(value: Any, nesting: int) -> str | None:
    if nesting > MAX_NESTING:
        return f"it is nested over {MAX_NESTING} deep"
    items = value
    if isinstance(value, dict):
        for name in value:
            if not isinstance(name, str):
                return f"an object's name is a {type(name).__name__}, not a text"
            why = text_problem(name)
            if why is not None:
                return why
        items = value.values()
    for item in items:
        why = _problem(item, nesting)
        if why is not None:
            return why
    return None
