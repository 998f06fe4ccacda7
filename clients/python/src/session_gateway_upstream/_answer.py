"""What the middleware of all frameworks answers and logs."""

from __future__ import annotations

import json
import logging

from ._errors import BadSessionChange, Refused, SessionError
from ._session import Session

X_SESSION = "x-session"
X_SESSION_SET = "X-Session-Set"
# Where the session is in an ASGI scope, a WSGI environ and an aiohttp request.
KEY = "session_gateway_upstream.session"
REFUSED = 401
FAILED = 500

_log = logging.getLogger("session_gateway_upstream")
_MAX_LOGGED = 200


def body(code: str) -> bytes:
    """What the client is told: the code, and no details."""
    return json.dumps({"code": code}, separators=(",", ":")).encode("ascii")


def fields(code: str) -> list[tuple[str, str]]:
    """The header fields of such an answer."""
    return [
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(body(code)))),
        ("Cache-Control", "no-store"),
    ]


def log_refused(method: str, path: str, refused: Refused) -> None:
    """Say which request was refused and why; nothing of the token, and no query."""
    _log.warning("%s: refused %.20r %.*r: %s", refused.code, method, _MAX_LOGGED, path, refused)


def log_bad_change(method: str, path: str, error: BadSessionChange) -> None:
    """Say why a response became a 500."""
    _log.error("%s: answered 500 to %.20r %.*r: %s", error.code, method, _MAX_LOGGED, path, error)


def log_lost(method: str, path: str, session: Session) -> None:
    """Say so if a value was changed in place when the head of the response was out already."""
    lost = session._lost()
    if lost:
        _log.error(
            "%.20r %.*r: changed after the response had begun, and lost: %r",
            method,
            _MAX_LOGGED,
            path,
            lost,
        )


def log_no_head(method: str, path: str) -> None:
    """Say that a refused WebSocket handshake could not carry the session's change."""
    _log.error(
        "%.20r %.*r: the server cannot send header fields with a refused handshake; "
        "the session's change is lost",
        method,
        _MAX_LOGGED,
        path,
    )


def exempt() -> SessionError:
    """What asks for the session of a request that is exempt or refused gets this."""
    return SessionError("this request is exempt or refused, so it has no session")


def no_middleware(how: str) -> SessionError:
    """What a handler gets where no middleware has seen the request."""
    return SessionError(f"there is no session: {how}")
