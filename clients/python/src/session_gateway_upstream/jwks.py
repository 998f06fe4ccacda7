"""The gateway's public keys, fetched from it.

settings = Settings(public_keys=RemoteKeys("http://127.0.0.1:8081/.well-known/jwks.json"), ...)
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import re
import socket
import ssl
import threading
import time
from typing import Callable
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
_TARGET = re.compile(r"[!-~]+")
_NOT_IN_URLS = re.compile(r"[\s\0-\x1f\x7f]")


class RemoteKeys:
    """For `public_keys`: fetches the gateway's JWK set, and keeps it for five minutes.

    For a `kid` that is not in it, it is fetched again, but at most every five seconds. Where it
    cannot be fetched, there is no key: an error, which becomes a 500.

    This is an async function of the `kid`, for ASGI and aiohttp. For WSGI take its `blocking`.
    """

    def __init__(self, url: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Fetch nothing yet. `clock` is for tests."""
        self._address = _address(url)
        self._clock = clock
        self._keys: dict[str, str] = {}
        self._good = self._tried = float("-inf")
        self._lock = threading.Lock()
        self._of_thread = _OfThread()

    def __repr__(self) -> str:
        """Show no key."""
        return "<RemoteKeys>"

    async def __call__(self, kid: str) -> str | None:
        """The `x` of this key, or None."""
        if not self._has(kid):
            # Who comes while it is fetched waits for the same answer.
            fetching = self._of_thread.fetching
            if fetching is None or not _is_ours(fetching):
                fetching = None
                if self._may_try():
                    fetching = asyncio.ensure_future(asyncio.to_thread(self._update, kid))
                    fetching.add_done_callback(_take_error)
                self._of_thread.fetching = fetching
            if fetching is not None:
                # A visitor who leaves does not end it for the others.
                await asyncio.shield(fetching)
        return self._found(kid)

    def blocking(self, kid: str) -> str | None:
        """The same for WSGI."""
        if not self._has(kid):
            self._update(kid)
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

    def _update(self, kid: str) -> None:
        # Who waited for the fetch of another thread or loop takes what came of it.
        with self._lock:
            if not self._has(kid) and self._may_try():
                self._fetch()

    def _fetch(self) -> None:
        try:
            self._keys = _read(_get(*self._address))
            self._good = self._clock()
        finally:
            # The pause begins at the end: a fetch may take as long itself.
            self._tried = self._clock()


class _OfThread(threading.local):
    """The fetch that the requests of a thread's event loop wait for: no other loop can."""

    fetching: asyncio.Task[None] | None = None


def _is_ours(fetching: asyncio.Task[None]) -> bool:
    # That of a loop that was closed in the middle of it is never done.
    return not fetching.done() and fetching.get_loop() is asyncio.get_running_loop()


def _take_error(fetching: asyncio.Task[None]) -> None:
    # Whoever still waits gets the error; that nobody does is no error of its own.
    if not fetching.cancelled():
        fetching.exception()


def _address(url: str) -> tuple[bool, str, int, str]:
    """Whether it is TLS, host, port and target."""
    if not isinstance(url, str) or _NOT_IN_URLS.search(url):
        raise _no_address()
    try:
        parts = urlsplit(url)
        host, port, user = parts.hostname, parts.port, parts.username
    except ValueError:
        raise _no_address() from None
    if parts.scheme not in ("http", "https") or not host or user is not None:
        raise _no_address()
    is_tls = parts.scheme == "https"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not _TARGET.fullmatch(target):
        raise _no_address()
    if port is None:
        port = http.client.HTTPS_PORT if is_tls else http.client.HTTP_PORT
    return is_tls, host, port, target


def _no_address() -> SettingsError:
    return SettingsError("the URL of the JWK set must be http://host... or https://host...")


def _get(is_tls: bool, host: str, port: int, target: str) -> bytes:
    """The body of a 200. No proxy is asked, and no redirect followed: that is not the gateway."""
    connection = http.client.HTTPConnection(host, port)
    context = None
    if is_tls:
        context = ssl.create_default_context()
        context.set_alpn_protocols(["http/1.1"])
        connection = http.client.HTTPSConnection(host, port, context=context)
    sock = socket.create_connection((host, port), _TIMEOUT_SECONDS)
    late = threading.Event()

    def end() -> None:
        late.set()
        with contextlib.suppress(OSError):
            # That of an SSLSocket would let the thread that reads go on without TLS.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)

    # The socket's own timeout is for each read: it does not end an answer that drips. It is
    # longer, so that there is one kind of failure.
    sock.settimeout(2 * _TIMEOUT_SECONDS)
    timer = threading.Timer(_TIMEOUT_SECONDS, end)
    timer.daemon = True
    try:
        if context is not None:
            sock = context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
        timer.start()
        if isinstance(sock, ssl.SSLSocket):
            sock.do_handshake()
        connection.sock = sock
        connection.request("GET", target, headers={"Connection": "close"})
        with connection.getresponse() as answer:
            text = answer.read(_MAX_BYTES + 1)
    except Exception:
        if late.is_set():
            raise _late() from None
        raise
    finally:
        timer.cancel()
        if timer.ident is not None:
            # So that it never meets another socket under the same number.
            timer.join()
        connection.close()
        sock.close()
    # What was cut off looks like an answer that has ended.
    if late.is_set():
        raise _late()
    if answer.status != http.client.OK:
        raise ConnectionError(f"the JWK set was answered with {answer.status}")
    if len(text) > _MAX_BYTES:
        raise ValueError("the JWK set is over 64 KiB")
    return text


def _late() -> TimeoutError:
    return TimeoutError(f"the JWK set was not answered within {_TIMEOUT_SECONDS} seconds")


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
