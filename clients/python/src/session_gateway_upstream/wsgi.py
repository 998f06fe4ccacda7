"""Sessions for WSGI: Flask and others.

app.wsgi_app = SessionMiddleware(app.wsgi_app, settings)

session = get_session(request.environ)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Callable, Optional

from . import _answer
from ._errors import BadSessionChange, Refused, SettingsError
from ._session import Session
from ._settings import Settings

__all__ = ["SessionMiddleware", "get_session"]

Environ = dict[str, Any]
Headers = list[tuple[str, str]]
# The optional third argument of start_response is what no type of a function can say.
StartResponse = Callable[..., Callable[[bytes], object]]
WSGIApp = Callable[[Environ, Any], Iterable[bytes]]
OnRefused = Callable[[Environ, Refused], WSGIApp]
Target = Callable[[Environ], Optional[str]]

_HINT = "Use a server that sets RAW_URI or REQUEST_URI, or say with target how to find it."
_REASONS = {401: "401 Unauthorized", 500: "500 Internal Server Error"}


def get_session(environ: Environ) -> Session:
    """The session of a request, by its environ."""
    session = environ.get(_answer.KEY)
    if not isinstance(session, Session):
        raise _answer.no_middleware("the request is exempt, or SessionMiddleware is not installed")
    return session


def raw_target(environ: Environ) -> str | None:
    """The target as it stood on the request line, where the server tells it.

    gunicorn and Werkzeug set RAW_URI; uWSGI, mod_wsgi, waitress and cheroot REQUEST_URI.
    """
    for name in ("RAW_URI", "REQUEST_URI"):
        target = environ.get(name)
        if target:
            return str(target)
    return None


class SessionMiddleware:
    """Checks `X-Session`, gives the session to the handler, and sends what it changed.

    `on_refused` is called with the environ and the reason, and gives the answer to a request that
    is refused: a WSGI application, such as a Werkzeug response.

    `target` gives the raw target, as the bytes' latin-1, where the server has its own way to tell
    it.
    """

    def __init__(
        self,
        app: WSGIApp,
        settings: Settings,
        *,
        on_refused: OnRefused | None = None,
        target: Target = raw_target,
    ) -> None:
        """Wrap `app`."""
        if not isinstance(settings, Settings):
            raise SettingsError("settings must be Settings(...)")
        settings.must_be_sync()
        if on_refused is not None and not callable(on_refused):
            raise SettingsError("on_refused must be a function of the environ and the reason")
        if not callable(target):
            raise SettingsError("target must be a function of the environ")
        self.app = app
        self._settings = settings
        self._on_refused = on_refused
        self._target = target

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request of the server."""
        method: str = environ["REQUEST_METHOD"]
        path: str = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        # An outer middleware's session is not that of an exempt request.
        environ.pop(_answer.KEY, None)
        if self._settings.is_exempt(method, path):
            return self.app(environ, start_response)
        try:
            session = self._session(method, environ)
        except Refused as refused:
            _answer.log_refused(method, path, refused)
            if self._on_refused is not None:
                return self._on_refused(environ, refused)(environ, start_response)
            return _send_code(method, start_response, _answer.REFUSED, refused.code)
        environ[_answer.KEY] = session
        response = _Response(start_response, session, method, path)
        try:
            body = self.app(environ, response.start)
        except Exception:
            if response.failed is None or response.begun:
                raise
            return response.failure()
        # What is sent as a whole, or as a file by the server, is left as it is.
        wrapper = environ.get("wsgi.file_wrapper")
        whole = (list, tuple, wrapper) if isinstance(wrapper, type) else (list, tuple)
        if response.begun and isinstance(body, whole):
            response.end()
            return body
        return _Body(body, response)

    def _session(self, method: str, environ: Environ) -> Session:
        target = self._target(environ)
        token, host = environ.get("HTTP_X_SESSION"), environ.get("HTTP_HOST")
        return self._settings.session(
            [] if token is None else [token],
            method=method,
            hosts=[] if host is None else [host],
            targets=[target] if target else [],
            upgrade="HTTP_UPGRADE" in environ,
            hint="" if target else _HINT,
        )


def _send_code(method: str, start_response: StartResponse, status: int, code: str) -> list[bytes]:
    start_response(_REASONS[status], _answer.fields(code))
    return [] if method == "HEAD" else [_answer.body(code)]


class _Response:
    """Puts X-Session-Set into the head of a response when it goes out."""

    def __init__(
        self, start_response: StartResponse, session: Session, method: str, path: str
    ) -> None:
        self.begun = False
        self.failed: BadSessionChange | None = None
        self._start_response = start_response
        self._session = session
        self._method = method
        self._path = path

    def start(
        self, status: str, headers: Headers, exc_info: Any = None
    ) -> Callable[[bytes], object]:
        """Be the application's start_response."""
        has_own = any(name.lower() == "x-session-set" for name, _ in headers)
        try:
            field = self._session._close(int(status[:3]), has_own)
        except BadSessionChange as error:
            self.failed = error
            raise
        if field is not None:
            headers = [*headers, (_answer.X_SESSION_SET, field)]
        write = (
            self._start_response(status, headers, exc_info)
            if exc_info
            else self._start_response(status, headers)
        )
        self.begun = True
        return write

    def failure(self) -> list[bytes]:
        """Answer 500 in the place of the application, which has said nothing yet."""
        error = self.failed
        if error is None or self.begun:
            raise RuntimeError("there is no failure to answer")
        self.begun = True
        _answer.log_bad_change(self._method, self._path, error)
        return _send_code(self._method, self._start_response, _answer.FAILED, error.code)

    def end(self) -> None:
        """Look for what came too late."""
        _answer.log_lost(self._method, self._path, self._session)


class _Body:
    """The application's body. A generator calls start_response when it is first asked."""

    def __init__(self, body: Iterable[bytes], response: _Response) -> None:
        self._body = body
        self._response = response
        self._chunks: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            if self._chunks is None:
                self._chunks = iter(self._body)
            return next(self._chunks)
        except StopIteration:
            raise
        except Exception:
            if self._response.failed is None or self._response.begun:
                raise
            self._chunks = iter(self._response.failure())
            return next(self._chunks, b"")

    def close(self) -> None:
        """Close the application's body."""
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            self._response.end()
