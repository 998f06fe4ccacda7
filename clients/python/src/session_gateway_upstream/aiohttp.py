"""Sessions for aiohttp.

setup(app, settings)

session = await request.get_session()
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable
from typing import Any, Callable, Union

from aiohttp import web

from . import _answer
from ._errors import BadSessionChange, Refused, SettingsError
from ._session import Session
from ._settings import Settings

__all__ = ["get_session", "setup"]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
OnRefused = Callable[
    [web.Request, Refused], Union[web.StreamResponse, Awaitable[web.StreamResponse]]
]

# aiohttp 3.14 and newer warn of texts as keys.
_KEY: Any = web.RequestKey(_answer.KEY, Session) if hasattr(web, "RequestKey") else _answer.KEY


def get_session(request: web.BaseRequest) -> Session:
    """The session of a request: `await request.get_session()` for type checkers."""
    session = request.get(_KEY)
    if not isinstance(session, Session):
        raise _answer.no_middleware("the request is exempt, or setup(app, ...) was not called")
    return session


def setup(app: web.Application, settings: Settings, *, on_refused: OnRefused | None = None) -> None:
    """Check `X-Session`, give the session to the handlers, and send what they changed.

    Becomes the outermost middleware of `app`, also for its sub-applications.

    `on_refused` is called with the request and the reason, and gives the response to a request
    that is refused, or raises one. It may be async.
    """
    if not isinstance(settings, Settings):
        raise SettingsError("settings must be Settings(...)")
    if on_refused is not None and not callable(on_refused):
        raise SettingsError("on_refused must be a function of the request and the reason")

    @web.middleware
    async def session_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if settings.is_exempt(request.method, request.path):
            _attach(request, _none)
            return await handler(request)
        try:
            session = await _session(settings, request)
        except Refused as refused:
            _answer.log_refused(request.method, request.path, refused)
            if on_refused is None:
                return _code(_answer.REFUSED, refused.code)
            answer = on_refused(request, refused)
            return await answer if inspect.isawaitable(answer) else answer

        async def get() -> Session:
            return session

        request[_KEY] = session
        _attach(request, get)
        try:
            return await _handle(request, handler, session)
        finally:
            _answer.log_lost(request.method, request.path, session)

    app.middlewares.insert(0, session_middleware)
    # Only this sees the head of streams, which go out while the handler still runs.
    app.on_response_prepare.append(_put)


async def _session(settings: Settings, request: web.Request) -> Session:
    tokens, hosts = [], []
    upgrade = False
    for name, value in request.raw_headers:
        if name.lower() == b"x-session":
            tokens.append(value.decode("latin-1"))
        elif name.lower() == b"host":
            hosts.append(value.decode("latin-1"))
        elif name.lower() == b"upgrade":
            upgrade = True
    # The bytes of the request line, which aiohttp has read as UTF-8.
    target = request.raw_path.encode("utf-8", "surrogateescape").decode("latin-1")
    return await settings.asession(
        tokens, method=request.method, hosts=hosts, targets=[target], upgrade=upgrade
    )


async def _handle(request: web.Request, handler: Handler, session: Session) -> web.StreamResponse:
    """Call the handler; a change that cannot be sent becomes a 500 as long as this is possible."""
    try:
        try:
            response = await handler(request)
        except web.HTTPException as raised:
            _check(session, raised)
            raise
        _check(session, response)
    except _BadResponse as error:
        _answer.log_bad_change(request.method, request.path, error)
        return _failure(request, error)
    return response


def _check(session: Session, response: Any) -> None:
    if isinstance(response, web.StreamResponse) and not response.prepared:
        try:
            session._field(response.status, _answer.X_SESSION_SET in response.headers)
        except BadSessionChange as error:
            raise _BadResponse(error) from None


class _BadResponse(BadSessionChange):
    """A change that cannot be sent with a response, and no error that the handler made itself."""

    def __init__(self, error: BadSessionChange, coding: str | None = None) -> None:
        super().__init__(str(error), error.code)
        self.coding = coding


async def _put(request: web.Request, response: web.StreamResponse) -> None:
    """Put X-Session-Set into the head of a response when it goes out."""
    session = request.get(_KEY)
    if not isinstance(session, Session):
        return
    try:
        field = session._close(response.status, _answer.X_SESSION_SET in response.headers)
    except BadSessionChange as error:
        raise _BadResponse(error, response.headers.get("Content-Encoding")) from None
    if field is not None:
        response.headers[_answer.X_SESSION_SET] = field


def _failure(request: web.Request, error: _BadResponse) -> web.Response:
    response = _code(_answer.FAILED, error.code)
    # A stream whose head was stopped has told the connection already how its body will come.
    if getattr(request.writer, "chunked", False):
        del response.headers["Content-Length"]
        response.enable_chunked_encoding()
        if error.coding is not None:
            response.headers["Content-Encoding"] = error.coding
    response.force_close()
    return response


def _code(status: int, code: str) -> web.Response:
    response = web.Response(status=status, body=_answer.body(code))
    response.headers.update(dict(_answer.fields(code)))
    return response


async def _none() -> Session:
    raise _answer.exempt()


def _attach(request: web.Request, get: Callable[[], Awaitable[Session]]) -> None:
    # Past aiohttp's own __setattr__, which warns of it in Python's development mode.
    object.__setattr__(request, "get_session", get)
