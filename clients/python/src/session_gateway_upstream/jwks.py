"""The gateway's public keys, fetched from it.

settings = Settings(public_keys=RemoteKeys("http://127.0.0.1:8081/.well-known/jwks.json"), ...)
"""

from __future__ import annotations

import asyncio
import threading
import time
import urllib.request
from typing import Any, Callable
from urllib.parse import urlsplit

from ._errors import SettingsError
from ._json import strict_object
from ._token import KID

__all__ = ["RemoteKeys"]

_LIFE_SECONDS = 300
# Anybody can send a kid that there is not: it must not become a request each.
_PAUSE_SECONDS = 5
_TIMEOUT_SECONDS = 5
_MAX_BYTES = 64 * 1024


class RemoteKeys:
    """For `public_keys`: fetches the gateway's JWK set, and keeps it for five minutes.

    For a `kid` that is not in it, it is fetched again, but at most every five seconds. Where it
    cannot be fetched, there is no key: an error, which becomes a 500.

    This is an async function of the `kid`, for ASGI and aiohttp. For WSGI take its `blocking`.
    """

    def __init__(self, url: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Fetch nothing yet. `clock` is for tests."""
        parts = urlsplit(url) if isinstance(url, str) else None
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingsError("the URL of the JWK set must be http://... or https://...")
        self._url = url
        self._clock = clock
        self._keys: dict[str, str] = {}
        self._good = self._tried = float("-inf")
        self._lock = threading.Lock()
        self._fetching: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        """Show no key."""
        return "<RemoteKeys>"

    async def __call__(self, kid: str) -> str | None:
        """The `x` of this key, or None."""
        if not self._has(kid):
            # Who comes while it is fetched waits for the same answer.
            if self._fetching is None and self._may_try():
                self._fetching = asyncio.ensure_future(asyncio.to_thread(self._fetch))
                self._fetching.add_done_callback(self._fetched)
            if self._fetching is not None:
                # A visitor who leaves does not end it for the others.
                await asyncio.shield(self._fetching)
        return self._found(kid)

    def blocking(self, kid: str) -> str | None:
        """The same for WSGI."""
        if not self._has(kid):
            with self._lock:
                if not self._has(kid) and self._may_try():
                    self._fetch()
        return self._found(kid)

    def _is_stale(self) -> bool:
        return self._clock() - self._good >= _LIFE_SECONDS

    def _has(self, kid: str) -> bool:
        return kid in self._keys and not self._is_stale()

    def _may_try(self) -> bool:
        return self._clock() - self._tried >= _PAUSE_SECONDS

    def _found(self, kid: str) -> str | None:
        if self._is_stale():
            raise ConnectionError("the JWK set of the gateway could not be fetched")
        return self._keys.get(kid)

    def _fetched(self, task: asyncio.Task[None]) -> None:
        self._fetching = None
        # Whoever still waits gets the error; that nobody does is no error of its own.
        if not task.cancelled():
            task.exception()

    def _fetch(self) -> None:
        self._tried = self._clock()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)
        with opener.open(self._url, timeout=_TIMEOUT_SECONDS) as answer:
            if answer.status != 200:  # noqa: PLR2004 - OK
                raise ConnectionError(f"the JWK set was answered with {answer.status}")
            text = answer.read(_MAX_BYTES + 1)
        if len(text) > _MAX_BYTES:
            raise ValueError("the JWK set is over 64 KiB")
        self._keys = _read(text)
        self._good = self._clock()


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_request: Any) -> None:
        """Follow none: whoever answers there is not the gateway."""


def _read(text: bytes) -> dict[str, str]:
    keys = strict_object(text).get("keys")
    if not isinstance(keys, list):
        raise ValueError("the JWK set has no keys")  # noqa: TRY004 - one kind of failure
    found = {}
    for key in keys:
        if isinstance(key, dict) and (key.get("kty"), key.get("crv")) == ("OKP", "Ed25519"):
            kid, x = key.get("kid"), key.get("x")
            if isinstance(kid, str) and KID.fullmatch(kid) and isinstance(x, str):
                found[kid] = x
    return found
