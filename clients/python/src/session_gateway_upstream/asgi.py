"""Sessions for ASGI: Starlette, FastAPI and others.

app.add_middleware(SessionMiddleware, settings=settings)

session = await request.state.get_session()
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Iterator, Mapping, MutableMapping
from typing import Any, Callable, Union

from . import _answer
from ._errors import BadSessionChange, Refused, SettingsError
from ._session import Session
from ._settings import Settings

__all__ = ["SessionMiddleware", "get_session"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
OnRefused = Callable[[Scope, Refused], Union[ASGIApp, Awaitable[ASGIApp]]]

_DENIAL = "websocket.http.response"
_HINT = "If the server puts a root path before raw_path, say so with server_root_path."


def get_session(scope: Mapping[str, Any]) -> Session:
    """The session of a request, by its scope; a Starlette `Request` will do as well."""
    session = scope.get(_answer.KEY)
    if not isinstance(session, Session):
        raise _answer.no_middleware("the request is exempt, or SessionMiddleware is not installed")
    return session


class SessionMiddleware:
    """Checks `X-Session`, gives the session to the handler, and sends what it changed.

    `on_refused` is called with the scope and the reason, and gives the answer to a request that is
    refused: an ASGI application, such as a Starlette response. It may be async.

    `server_root_path` is the prefix that the server itself puts before `raw_path`, as uvicorn does
    with `--root-path`. It is cut off to compare the token with the request.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        *,
        on_refused: OnRefused | None = None,
        server_root_path: str = "",
    ) -> None:
        """Wrap `app`."""
        if not isinstance(settings, Settings):
            raise SettingsError("settings must be Settings(...)")
        if on_refused is not None and not callable(on_refused):
            raise SettingsError("on_refused must be a function of the scope and the reason")
        self.app = app
        self._settings = settings
        self._on_refused = on_refused
        self._root_path = server_root_path.rstrip("/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of the server."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        method = scope["method"] if scope["type"] == "http" else "GET"
        path = scope["path"]
        if self._root_path and path.startswith(self._root_path + "/"):
            path = path[len(self._root_path) :]
        # An outer middleware's session is not that of an exempt request.
        scope.pop(_answer.KEY, None)
        scope["state"] = state = _State(scope.get("state"))
        if self._settings.is_exempt(method, path):
            await self.app(scope, receive, send)
            return
        try:
            session = await self._session(method, scope)
        except Refused as refused:
            _answer.log_refused(method, path, refused)
            await self._refuse(scope, receive, send, refused)
            return

        async def get() -> Session:
            return session

        state.own["get_session"] = get
        scope[_answer.KEY] = session
        response = _Response(scope, send, session, method, path)
        try:
            await self.app(scope, receive, response.send)
        except Exception:
            # The client has its 500 already, and the log its line.
            if not response.failed:
                raise
        finally:
            _answer.log_lost(method, path, session)

    async def _session(self, method: str, scope: Scope) -> Session:
        tokens, hosts = [], []
        upgrade = scope["type"] == "websocket"
        for name, value in scope["headers"]:
            if name.lower() == b"x-session":
                tokens.append(value.decode("latin-1"))
            elif name.lower() == b"host":
                hosts.append(value.decode("latin-1"))
            elif name.lower() == b"upgrade":
                upgrade = True
        return await self._settings.asession(
            tokens,
            method=method,
            hosts=hosts,
            targets=self._targets(scope),
            upgrade=upgrade,
            hint=_HINT,
        )

    def _targets(self, scope: Scope) -> list[str]:
        raw_path: bytes | None = scope.get("raw_path")
        if not raw_path:
            return []
        root_path = self._root_path.encode("latin-1", "replace")
        if root_path:
            if not raw_path.startswith(root_path):
                return []
            raw_path = raw_path[len(root_path) :]
        query = scope.get("query_string") or b""
        path = raw_path.decode("latin-1")
        if query:
            return [f"{path}?{query.decode('latin-1')}"]
        # ASGI does not tell an empty query from none, and no application can.
        return [path, path + "?"]

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, refused: Refused) -> None:
        can_answer = scope["type"] == "http" or _can_deny(scope)
        if self._on_refused is None or not can_answer:
            await _send_code(scope, send, _answer.REFUSED, refused.code)
            return
        answer = self._on_refused(scope, refused)
        if inspect.isawaitable(answer):
            answer = await answer
        await answer(scope, receive, send)


async def _none() -> Session:
    raise _answer.exempt()


class _State(MutableMapping[str, Any]):
    """The state of one scope: what others have there, but with a `get_session` of its own.

    The others' dict may be that of several requests: hypercorn before 0.18 has one for all of a
    connection. So nothing of one visitor is put there. It is not copied, because what handlers
    put into `request.state` is to be seen by the middleware around this one.
    """

    def __init__(self, others: MutableMapping[str, Any] | None) -> None:
        self.own: dict[str, Any] = {"get_session": _none}
        self._others = {} if others is None else others

    def _holder(self, name: str) -> MutableMapping[str, Any]:
        return self.own if name == "get_session" else self._others

    def __getitem__(self, name: str) -> Any:
        return self._holder(name)[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._holder(name)[name] = value

    def __delitem__(self, name: str) -> None:
        del self._holder(name)[name]

    def __iter__(self) -> Iterator[str]:
        yield from self.own
        yield from (name for name in self._others if name != "get_session")

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def copy(self) -> dict[str, Any]:
        """As a dict has it."""
        return dict(self)

    def __or__(self, more: Any) -> Any:
        return dict(self) | dict(more) if isinstance(more, Mapping) else NotImplemented

    def __ror__(self, less: Any) -> Any:
        return dict(less) | dict(self) if isinstance(less, Mapping) else NotImplemented

    def __ior__(self, more: Any) -> _State:
        self.update(more)
        return self


def _can_deny(scope: Scope) -> bool:
    return _DENIAL in (scope.get("extensions") or {})


async def _send_code(scope: Scope, send: Send, status: int, code: str) -> None:
    prefix = ""
    if scope["type"] == "websocket":
        if not _can_deny(scope):
            # The server makes a 403 of it.
            await send({"type": "websocket.close", "code": 1008})
            return
        prefix = "websocket."
    headers = [
        (name.lower().encode("ascii"), value.encode("ascii"))
        for name, value in _answer.fields(code)
    ]
    await send({"type": f"{prefix}http.response.start", "status": status, "headers": headers})
    await send({"type": f"{prefix}http.response.body", "body": _answer.body(code)})


class _Response:
    """Puts X-Session-Set into the head of a response when it goes out."""

    def __init__(self, scope: Scope, send: Send, session: Session, method: str, path: str) -> None:
        self.failed = False
        self._begun = False
        self._scope = scope
        self._send = send
        self._session = session
        self._method = method
        self._path = path

    async def send(self, message: Message) -> None:
        """Take a message of the application."""
        if self.failed:
            raise BadSessionChange("the response has become a 500: the session's change was bad")
        status = None if self._begun else _status(message)
        if status is None:
            await self._send(message)
            return
        headers = list(message.get("headers") or ())
        has_own = any(name.lower() == b"x-session-set" for name, _ in headers)
        try:
            field = self._session._close(status, has_own)
        except BadSessionChange as error:
            self.failed = True
            _answer.log_bad_change(self._method, self._path, error)
            await _send_code(self._scope, self._send, _answer.FAILED, error.code)
            # Ends the handler too, so that it takes back what it has done.
            raise
        self._begun = True
        if field is None:
            await self._send(message)
            return
        headers.append((b"x-session-set", field.encode("ascii")))
        if message["type"] != "websocket.close":
            await self._send({**message, "headers": headers})
        elif _can_deny(self._scope):
            start = "websocket.http.response.start"
            await self._send({"type": start, "status": status, "headers": headers})
            await self._send({"type": "websocket.http.response.body", "body": b""})
        else:
            _answer.log_no_head(self._method, self._path)
            await self._send(message)


def _status(message: Message) -> int | None:
    """The status of the head that this message is, if it is one."""
    kind = message["type"]
    if kind in ("http.response.start", "websocket.http.response.start"):
        status: int = message["status"]
        return status
    return {"websocket.accept": 101, "websocket.close": 403}.get(kind)
