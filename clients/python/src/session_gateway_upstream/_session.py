"""The session in the handler: a mapping that knows what was changed."""

from __future__ import annotations

import copy
from collections.abc import Iterator, MutableMapping
from datetime import datetime
from typing import Any

from ._errors import BadSessionChange, SessionClosed, SessionWithheld
from ._json import check, encoded, spelling, strict_object, text_problem
from ._token import CONTENTS_WITHHELD, Claims

_MAX_FIELD = 16 * 1024
_ERRORS = 500
# What every JSON parser reads exactly. The gateway takes at most SESSION_COOKIE_AGE.
_MAX_EXPIRY = 2**53 - 1
_NOT_SET = object()

_WHY = {
    "too_large": "it is larger than the gateway's max_header_bytes",
    "not_json": "a value in it is JSON for Python only",
    "off": "the gateway's route does not read sessions",
    "unreadable": "the gateway cannot verify it",
    "unavailable": "the gateway's database does not answer",
}


class Session(MutableMapping[str, Any]):
    """The visitor's Django session, used like a dict.

    What is changed, also deep inside a value, goes into the response's `X-Session-Set`. Where the
    gateway did not tell the contents (`withheld`), reading raises `SessionWithheld`.
    """

    __slots__ = (
        "_before",
        "_claims",
        "_closed",
        "_complete",
        "_condition",
        "_cycle",
        "_data",
        "_expiry",
        "_flush",
        "_head",
        "_identified",
        "_late",
        "_original",
        "_removed",
        "_touch",
    )

    def __init__(self, claims: Claims) -> None:
        """Begin with what the gateway told."""
        self._claims = claims
        self._identified = claims.withheld is None or claims.withheld in CONTENTS_WITHHELD
        # Whether a key that is not in `_data` is not in the session.
        self._complete = claims.session is not None
        self._original: dict[str, Any] = claims.session or {}
        self._data = dict(self._original)
        # The spelling of each value that may be changed in place, from before it was handed out.
        self._before: dict[str, str | None] = {}
        # Keys that are to be deleted although nobody knows whether they are there.
        self._removed: dict[str, None] = {}
        self._flush = self._cycle = self._touch = self._condition = False
        self._expiry: Any = _NOT_SET
        # Whether a head has gone out; what is changed from then on would be lost.
        self._closed = False
        # Its field's value, in a tuple of its own; None until then, and with an error of 500.
        self._head: tuple[str | None] | None = None
        self._late: dict[str, str | None] = {}

    # What came with the request

    @property
    def withheld(self) -> str | None:
        """Why the contents are not told; None if they are."""
        return self._claims.withheld

    @property
    def user_id(self) -> str | None:
        """The primary key of the logged-in Django user, as a text; None for nobody.

        This and the other attributes tell what the request came with: `flush` does not change them.
        """
        self._must_be_identified()
        return self._claims.sub

    @property
    def user(self) -> dict[str, Any] | None:
        """The columns of the user that the gateway's route asks for, if there are any; a copy.

        Where the contents are withheld, the columns may be too: unknown, which is not None.
        """
        self._must_be_identified()
        if self._claims.user is None and self._claims.withheld is not None:
            raise self._withheld()
        return copy.deepcopy(self._claims.user)

    @property
    def sid(self) -> str | None:
        """What stands for the session, as long as its key stays; None where there is no session."""
        self._must_be_identified()
        return self._claims.sid

    @property
    def rev(self) -> str | None:
        """The version of the session as this service may see it, if the gateway tells it."""
        self._must_be_identified()
        return self._claims.rev

    @property
    def expires_at(self) -> datetime | None:
        """When the session ends; None where there is no session."""
        self._must_be_identified()
        return self._claims.session_exp

    @property
    def claims(self) -> dict[str, Any]:
        """All claims of the token as they came; a copy."""
        return strict_object(self._claims.payload)

    # The mapping

    def __getitem__(self, key: str) -> Any:
        if key in self._data:
            value = self._data[key]
            self._watch(key, value)
            return value
        if self._complete or key in self._removed:
            raise KeyError(key)
        raise self._withheld()

    def __setitem__(self, key: str, value: Any) -> None:
        self._must_be_changeable()
        _check_key(key)
        check(key, value)
        self._data[key] = value

    def __delitem__(self, key: str) -> None:
        self._must_be_changeable()
        if key not in self._data and (self._complete or key in self._removed):
            raise KeyError(key)
        _check_key(key)
        self._data.pop(key, None)
        if not self._complete:
            self._removed[key] = None

    def __contains__(self, key: object) -> bool:
        if key in self._data:
            return True
        if self._complete or key in self._removed:
            return False
        raise self._withheld()

    def __iter__(self) -> Iterator[str]:
        self._must_be_complete()
        return iter(self._data)

    def __len__(self) -> int:
        self._must_be_complete()
        return len(self._data)

    def __repr__(self) -> str:
        """Show no session data."""
        return f"<Session withheld={self.withheld!r}>" if self.withheld else "<Session>"

    # What Django's sessions can do

    def flush(self) -> None:
        """Destroy the session: a logout. What is set afterwards goes into a fresh one."""
        self._must_be_changeable()
        self._flush, self._cycle, self._expiry = True, False, _NOT_SET
        self._original, self._data = {}, {}
        self._before, self._removed = {}, {}
        self._complete = True

    def cycle_key(self) -> None:
        """Give the session a new key. Do this when the visitor gets more rights."""
        self._must_be_changeable()
        # A session that begins after a flush has a new key anyway.
        self._cycle = not self._flush

    def set_expiry(self, seconds: int | None) -> None:
        """Let the session end so many seconds after each save.

        0: when the browser is closed. None: as the site's settings say.
        """
        self._must_be_changeable()
        if seconds is not None and (
            isinstance(seconds, bool)
            or not isinstance(seconds, int)
            or not 0 <= seconds <= _MAX_EXPIRY
        ):
            raise BadSessionChange("set_expiry takes seconds, an integer of 0 or more, or None")
        self._expiry = seconds

    def touch(self) -> None:
        """Extend the session, even if nothing else is changed."""
        self._must_be_changeable()
        self._touch = True

    def only_if_unchanged(self) -> None:
        """Let the change be stored only if the session is still as it was told here.

        If it is not, the client gets a 409. Where there is no session yet, it does nothing.
        """
        self._must_be_changeable()
        if self._claims.sid is None:
            return  # What is set goes into a new session, which nobody else can have changed.
        if self._claims.rev is None:
            raise BadSessionChange("only_if_unchanged needs a rev, and with not_json there is none")
        self._condition = True

    # For the middleware

    def _patch(self) -> str | None:
        """The value of X-Session-Set, if something is to be sent; BadSessionChange otherwise."""
        patch: dict[str, Any] = {}
        changed = {key: value for key, value in self._data.items() if self._is_changed(key, value)}
        for key, value in changed.items():
            _check_key(key)
            check(key, value)
        if self._flush:
            patch["flush"] = True
        if self._cycle:
            patch["cycle"] = True
        if changed:
            patch["set"] = changed
        gone = [key for key in (*self._original, *self._removed) if key not in self._data]
        if gone:
            for key in gone:
                _check_key(key)
            patch["del"] = gone
        if self._expiry is not _NOT_SET:
            patch["expiry"] = self._expiry
        if not patch and not self._touch:
            return None
        if self._condition:
            patch["if"] = self._claims.rev
        text = encoded(patch)
        if len(text) > _MAX_FIELD:
            raise BadSessionChange(
                f"the change is {len(text)} bytes long; at most {_MAX_FIELD} can be sent",
                "x-session-set-too-large",
            )
        return text

    def _field(self, status: int, has_own: bool) -> str | None:
        """What goes into a head with this status that has or has not an X-Session-Set already."""
        # As with Django, an error stores nothing.
        if status >= _ERRORS:
            return None
        field = self._patch() if self._head is None else self._head[0]
        if field is not None and has_own:
            raise BadSessionChange(
                "the handler has set X-Session-Set by hand, and has changed the session too",
                "x-session-set-twice",
            )
        return field

    def _close(self, status: int, has_own: bool) -> str | None:
        """The same for the head that goes out now: what is changed from now on would be lost."""
        field = self._field(status, has_own)
        if self._head is None:
            self._closed = True
            # A server that replaces an error by another head may still send the change with it.
            if status < _ERRORS:
                self._head = (field,)
            self._late = {
                key: spelling(value)
                for key, value in self._data.items()
                if _is_mutable(value)
                and (key in self._before or value is not self._original.get(key))
            }
        return field

    def _lost(self) -> list[str]:
        """The keys of values that were changed in place after the head was out."""
        return [key for key, text in self._late.items() if spelling(self._data[key]) != text]

    def _watch(self, key: str, value: Any) -> None:
        """Remember how `value` is spelt, since whoever gets it may change it in place."""
        if not _is_mutable(value):
            return
        if self._head is None and key not in self._before and value is self._original.get(key):
            self._before[key] = spelling(value)
        if self._closed:
            self._late.setdefault(key, spelling(value))

    def _is_changed(self, key: str, value: Any) -> bool:
        if key not in self._original:
            return True
        original = self._original[key]
        # What was never handed out is as it was.
        if key not in self._before and value is original:
            return False
        return spelling(value) != self._before.get(key, spelling(original))

    def _withheld(self) -> SessionWithheld:
        why = _WHY.get(self.withheld or "", "the gateway says so")
        return SessionWithheld(f"the session is withheld ({self.withheld}): {why}")

    def _must_be_identified(self) -> None:
        if not self._identified:
            raise self._withheld()

    def _must_be_complete(self) -> None:
        if not self._complete:
            raise self._withheld()

    def _must_be_changeable(self) -> None:
        self._must_be_identified()
        if self._closed:
            raise SessionClosed("the response has begun: the session cannot be changed any more")


def _is_mutable(value: Any) -> bool:
    return value is not None and not isinstance(value, (str, int, float))


def _check_key(key: str) -> None:
    if not isinstance(key, str):
        raise BadSessionChange("the keys of a session are texts")
    if key.startswith("_"):
        raise BadSessionChange(f"session[{key!r}]: keys that start with _ belong to Django")
    why = text_problem(key)
    if why is not None:
        raise BadSessionChange(f"session[{key!r}]: {why}")
