import contextlib
import inspect
import io
import json
import unittest
from collections.abc import Iterable, Iterator
from typing import Any, Callable, Optional
from wsgiref.util import FileWrapper

from flask import Flask, Response, abort, redirect

from session_gateway_upstream import (
    BadSessionChange,
    Session,
    SessionClosed,
    SessionError,
    SettingsError,
)
from session_gateway_upstream import flask as for_flask
from session_gateway_upstream.wsgi import SessionMiddleware, get_session
from support import HOST, KID, TOO_LARGE, USER, VECTORS, session, settings, token


class Answer:
    """What a server makes of an application's answer."""

    def __init__(self, app: Any, environ: dict[str, Any]) -> None:
        self.heads: list[tuple[str, list[tuple[str, str]]]] = []
        self.written: list[bytes] = []
        self.result = app(environ, self.start)
        try:
            self.body = b"".join(self.result)
        finally:
            close = getattr(self.result, "close", None)
            if close is not None:
                close()
        self.body = b"".join(self.written) + self.body

    def start(self, status: str, headers: Any, exc_info: Any = None) -> Callable[[bytes], None]:
        assert exc_info or not self.heads, "a second head without exc_info"
        self.heads.append((status, headers))
        return self.written.append

    @property
    def status(self) -> int:
        return int(self.heads[-1][0][:3])

    @property
    def field(self) -> Any:
        found = [v for name, v in self.heads[-1][1] if name.lower() == "x-session-set"]
        assert len(found) < 2, found
        return json.loads(found[0]) if found else None


def ask(
    app: Any,
    method: str = "GET",
    target: str = "/",
    given: Optional[str] = None,
    visitor: dict[str, Any] = USER,
    **environ: Any,
) -> Answer:
    path, _, query = target.partition("?")
    found = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "RAW_URI": target,
        "HTTP_HOST": HOST,
        "HTTP_X_SESSION": token(visitor, method, target) if given is None else given,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": io.StringIO(),
        "wsgi.url_scheme": "http",
        "wsgi.file_wrapper": FileWrapper,
        **environ,
    }
    return Answer(app, {name: value for name, value in found.items() if value is not None})


def answer(
    change: Callable[[Session], Any],
    status: str = "200 OK",
    headers: Any = (),
    body: Any = (b"whole",),
    **options: Any,
) -> SessionMiddleware:
    def app(environ: Any, start_response: Any) -> Any:
        change(get_session(environ))
        start_response(status, list(headers))
        return body

    return SessionMiddleware(app, settings(), **options)


class Wsgi(unittest.TestCase):
    def test_the_handler_gets_the_session_and_its_changes_are_sent(self) -> None:
        found = ask(answer(lambda s: s["cart"].append(s.user_id)))
        self.assertEqual(found.field, {"set": {"cart": ["book", "42"]}})
        self.assertEqual(found.body, b"whole")

    def test_nothing_is_added_when_nothing_changed(self) -> None:
        self.assertEqual(ask(answer(dict, headers=[("A", "b")])).heads, [("200 OK", [("A", "b")])])

    def test_every_status_below_500_carries_the_change(self) -> None:
        for status in ("204 No Content", "303 See Other", "304 Not Modified", "404 Not Found"):
            self.assertEqual(ask(answer(lambda s: s.update(a=1), status)).field, {"set": {"a": 1}})
        self.assertEqual(ask(answer(lambda s: s.update(a=1)), "HEAD").field, {"set": {"a": 1}})
        self.assertIsNone(ask(answer(lambda s: s.update(a=1), "500 Error")).field)

    def test_a_generator_that_answers_when_it_is_first_asked_carries_the_change(self) -> None:
        def app(environ: Any, start_response: Any) -> Iterator[bytes]:
            session = get_session(environ)
            session["a"] = 1
            start_response("200 OK", [])
            yield b"one"
            try:
                session["b"] = 2
            except SessionClosed:
                yield b"closed"

        found = ask(SessionMiddleware(app, settings()))
        self.assertEqual((found.field, found.body), ({"set": {"a": 1}}, b"oneclosed"))

    def test_write_works_as_without_the_middleware(self) -> None:
        def app(environ: Any, start_response: Any) -> Iterable[bytes]:
            get_session(environ)["a"] = 1
            write = start_response("200 OK", [])
            write(b"one")
            return [b"two"]

        found = ask(SessionMiddleware(app, settings()))
        self.assertEqual((found.field, found.body), ({"set": {"a": 1}}, b"onetwo"))

    def test_a_head_that_replaces_the_first_is_judged_anew(self) -> None:
        def app_of(first: str, second: str) -> Any:
            def app(environ: Any, start_response: Any) -> Iterable[bytes]:
                get_session(environ)["a"] = 1
                start_response(first, [])
                try:
                    raise RuntimeError
                except RuntimeError:
                    import sys

                    start_response(second, [], sys.exc_info())
                return []

            return SessionMiddleware(app, settings())

        self.assertIsNone(ask(app_of("200 OK", "500 Error")).field)
        for first in ("200 OK", "500 Error"):
            found = ask(app_of(first, "404 Not Found"))
            self.assertEqual((found.status, found.field), (404, {"set": {"a": 1}}))

    def test_a_field_set_by_hand_in_a_head_that_replaces_the_first_is_no_second_one(self) -> None:
        def app(environ: Any, start_response: Any) -> Iterable[bytes]:
            get_session(environ)["a"] = 1
            start_response("200 OK", [])
            start_response("404 Not Found", [("X-Session-Set", "{}")], (None, None, None))
            return []

        with self.assertRaises(BadSessionChange):
            ask(SessionMiddleware(app, settings()))

    def test_whole_bodies_and_files_are_handed_on_as_they_are(self) -> None:
        for body in ([b"a"], (b"a",), FileWrapper(io.BytesIO(b"a"))):
            self.assertIs(ask(answer(dict, body=body)).result, body)

    def test_a_server_whose_file_wrapper_is_a_function_sends_bodies_of_all_kinds(self) -> None:
        for body in ([b"a"], iter([b"a"]), FileWrapper(io.BytesIO(b"a"))):
            found = ask(answer(dict, body=body), **{"wsgi.file_wrapper": lambda file: file})
            self.assertEqual((found.status, found.body), (200, b"a"))

    def test_the_body_is_closed(self) -> None:
        class Body:
            closed = False

            def __iter__(self) -> Iterator[bytes]:
                raise OSError("broken")

            def close(self) -> None:
                self.closed = True

        body = Body()
        with self.assertRaises(OSError):
            ask(answer(dict, body=body))
        self.assertTrue(body.closed)

    def test_a_change_in_place_that_came_too_late_is_logged(self) -> None:
        def app(environ: Any, start_response: Any) -> Iterator[bytes]:
            session = get_session(environ)
            start_response("200 OK", [])
            yield b"one"
            session["cart"].append("hunter2")

        def whole(environ: Any, start_response: Any) -> Iterable[bytes]:
            session = get_session(environ)
            start_response("200 OK", [])
            session["cart"].append("hunter2")
            return [b"one"]

        for late in (app, whole):
            with self.assertLogs("session_gateway_upstream", "ERROR") as logs:
                ask(SessionMiddleware(late, settings()))
            self.assertEqual(len(logs.output), 1)
            self.assertIn("'cart'", logs.output[0])
            self.assertNotIn("hunter2", logs.output[0])

    def test_a_change_that_cannot_be_sent_becomes_a_500(self) -> None:
        def lazy(environ: Any, start_response: Any) -> Iterator[bytes]:
            get_session(environ)["a"] = "x" * 20_000
            start_response("200 OK", [])
            yield b"one"

        large = "x-session-set-too-large"
        for app, code in (
            (answer(lambda s: s.update(a="x" * 20_000)), large),
            (
                answer(lambda s: s.update(a=1), headers=[("x-session-Set", "{}")]),
                "x-session-set-twice",
            ),
            (SessionMiddleware(lazy, settings()), large),
        ):
            for method in ("GET", "HEAD"):
                with self.assertLogs("session_gateway_upstream", "ERROR") as logs:
                    found = ask(app, method)
                self.assertEqual(len(logs.output), 1)
                self.assertIn(code, logs.output[0])
                self.assertEqual((found.status, found.field, len(found.heads)), (500, None, 1))
                if method == "GET":
                    self.assertEqual(json.loads(found.body), {"code": code})
                else:
                    self.assertEqual(found.body, b"")

    def test_an_application_may_answer_a_bad_change_by_itself(self) -> None:
        def app(environ: Any, start_response: Any) -> Iterable[bytes]:
            get_session(environ)["a"] = "x" * 20_000
            try:
                start_response("200 OK", [])
            except BadSessionChange:
                start_response("500 Error", [])
            return [b"own"]

        found = ask(SessionMiddleware(app, settings()))
        self.assertEqual((found.status, found.field, found.body), (500, None, b"own"))

    def test_an_application_cannot_answer_a_bad_change_as_if_it_were_good(self) -> None:
        def app(environ: Any, start_response: Any) -> Iterable[bytes]:
            get_session(environ)["a"] = "x" * 20_000
            with contextlib.suppress(BadSessionChange):
                start_response("200 OK", [])
            start_response("200 OK", [])
            return [b"own"]

        with self.assertLogs("session_gateway_upstream", "ERROR"):
            found = ask(SessionMiddleware(app, settings()))
        self.assertEqual((found.status, found.field), (500, None))

    def test_an_error_of_the_application_stays_one(self) -> None:
        def app(_environ: Any, _start_response: Any) -> Iterable[bytes]:
            raise ZeroDivisionError

        def lazy(_environ: Any, _start_response: Any) -> Iterator[bytes]:
            yield b""
            raise ZeroDivisionError

        for broken in (app, lazy):
            with self.assertRaises(ZeroDivisionError):
                ask(SessionMiddleware(broken, settings()))

    def test_a_request_that_is_refused_does_not_reach_the_handler(self) -> None:
        def never(_session: Session) -> None:
            raise AssertionError("reached")

        for given, code in (
            ({"HTTP_X_SESSION": None}, "x-session-missing"),
            ({"given": f"{token()},{token()}"}, "x-session-twice"),
            ({"given": f"{token()}, {token()}"}, "x-session-twice"),
            ({"given": token() + "x"}, "x-session-signature"),
        ):
            with self.assertLogs("session_gateway_upstream", "WARNING") as logs:
                found = ask(answer(never), target="/a?secret=1", **given)  # type: ignore[arg-type]
            self.assertEqual((found.status, json.loads(found.body)), (401, {"code": code}))
            self.assertEqual(len(logs.output), 1)
            self.assertIn(code, logs.output[0])
            self.assertNotIn("secret", logs.output[0])
        with self.assertLogs("session_gateway_upstream", "WARNING"):
            self.assertEqual(ask(answer(never), "HEAD", HTTP_X_SESSION=None).body, b"")

    def test_the_answer_to_a_refused_request_can_be_replaced(self) -> None:
        app = answer(dict, on_refused=lambda _environ, refused: Response(refused.code, 403))
        with self.assertLogs("session_gateway_upstream", "WARNING"):
            found = ask(app, HTTP_X_SESSION=None)
        self.assertEqual((found.status, found.body), (403, b"x-session-missing"))

    def test_an_exempt_path_passes_without_a_session(self) -> None:
        def app(environ: Any, start_response: Any) -> Iterable[bytes]:
            start_response("200 OK", [])
            try:
                get_session(environ)
            except SessionError:
                return [b"none"]
            return [b"some"]

        exempt = SessionMiddleware(app, settings(exempt=["/healthz"]))
        self.assertEqual(ask(exempt, target="/healthz", HTTP_X_SESSION=None).body, b"none")
        left_over = {"session_gateway_upstream.session": session()}
        self.assertEqual(ask(exempt, target="/healthz", **left_over).body, b"none")
        self.assertEqual(ask(exempt).body, b"some")

    def test_the_request_is_compared_by_its_raw_target(self) -> None:
        for target in ("/a%2Fb?x=%20y", "/caf%C3%A9", "/caf\xe9", "/a?"):
            self.assertEqual(ask(answer(dict), "POST", target).status, 200)
            named = {"RAW_URI": None, "REQUEST_URI": target}
            self.assertEqual(ask(answer(dict), "POST", target, **named).status, 200)
        for other in ({"RAW_URI": "/b"}, {"HTTP_HOST": "x"}, {"HTTP_HOST": None}):
            self.assertEqual(ask(answer(dict), "GET", "/a", **other).status, 200)
            for method, more in (("POST", {}), ("GET", {"HTTP_UPGRADE": "websocket"})):
                with self.assertLogs("session_gateway_upstream", "WARNING") as logs:
                    self.assertEqual(ask(answer(dict), method, "/a", **other, **more).status, 401)
        with self.assertLogs("session_gateway_upstream", "WARNING") as logs:
            self.assertEqual(ask(answer(dict), "POST", "/a", RAW_URI=None).status, 401)
        self.assertIn("RAW_URI", logs.output[0])
        own = answer(dict, target=lambda environ: environ["own"])
        self.assertEqual(ask(own, "POST", "/a", RAW_URI=None, own="/a").status, 200)

    def test_wrong_settings_are_told_at_once(self) -> None:
        for wrong in ({"settings": None}, {"on_refused": "x"}, {"target": "RAW_URI"}):
            with self.assertRaises(SettingsError):
                SessionMiddleware(**{"app": answer(dict), "settings": settings(), **wrong})

    def test_an_async_function_for_keys_is_told_at_the_start_or_at_its_first_call(self) -> None:
        async def key(_kid: str) -> str:
            raise AssertionError("called")

        x = VECTORS["eddsa"]["jwks"]["keys"][0]["x"]
        for given in ({"keys": key}, {"public_keys": key}, {"keys": key, "public_keys": {"gw": x}}):
            with self.assertRaises(SettingsError):
                SessionMiddleware(answer(dict), settings(**given))
        hidden = key(KID)
        app = SessionMiddleware(answer(dict), settings(keys=lambda _kid: hidden))
        with self.assertRaisesRegex(SettingsError, "async"):
            ask(app)
        # Otherwise Python warns that nobody has awaited it.
        self.assertEqual(inspect.getcoroutinestate(hidden), inspect.CORO_CLOSED)


class FlaskApp(unittest.TestCase):
    def app(self) -> Flask:
        app = Flask(__name__)
        app.wsgi_app = for_flask.SessionMiddleware(app.wsgi_app, settings())  # type: ignore[method-assign]

        @app.get("/<act>")
        def act(act: str) -> Any:
            session = for_flask.get_session()
            if act == "list":
                return dict(session)
            session["a"] = "x" * 20_000 if act == "large" else 1
            if act == "abort":
                abort(redirect("/", 303))
            if act == "404":
                abort(404)
            if act == "stream":
                return Response(iter(["one", "two"]))
            if act == "fail":
                raise RuntimeError
            return "ok"

        return app

    def test_every_way_to_answer_carries_the_change(self) -> None:
        for act, status in (("ok", 200), ("abort", 303), ("404", 404), ("stream", 200)):
            found = ask(self.app(), target=f"/{act}")
            self.assertEqual((found.status, found.field), (status, {"set": {"a": 1}}))

    def test_errors_carry_nothing(self) -> None:
        app = self.app()
        app.logger.disabled = True
        found = ask(app, target="/fail")
        self.assertEqual((found.status, found.field), (500, None))
        with self.assertLogs("session_gateway_upstream", "ERROR"):
            found = ask(app, target="/large")
        self.assertEqual((found.status, found.field), (500, None))
        self.assertEqual(ask(app, target="/list", visitor=TOO_LARGE).status, 500)


if __name__ == "__main__":
    unittest.main()
