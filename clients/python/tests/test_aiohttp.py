import asyncio
import json
import unittest
import warnings
from collections.abc import Awaitable
from typing import Any, Callable, Optional

from aiohttp import ClientSession, DummyCookieJar, web
from aiohttp.test_utils import TestServer
from yarl import URL

from session_gateway_upstream import BadSessionChange, SessionClosed, SessionError, SettingsError
from session_gateway_upstream.aiohttp import get_session, setup
from support import SECRET, USER, settings, token

Handler = Callable[[Any], Awaitable[web.StreamResponse]]


class Answer:
    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status = status
        self.body = body
        self.code = json.loads(body).get("code") if body.startswith(b"{") else None
        found = headers.getall("X-Session-Set", [])
        assert len(found) < 2, found
        self.field = json.loads(found[0]) if found else None


def ask(
    handler: Handler,
    method: str = "GET",
    target: str = "/",
    tokens: Optional[list[str]] = None,
    times: int = 1,
    token_target: Optional[str] = None,
    change_app: Callable[[web.Application], None] = lambda app: None,
    headers: Any = (),
    **options: Any,
) -> Answer:
    """The last answer to so many requests on one connection."""

    async def run() -> Answer:
        app = web.Application()
        app.router.add_route("*", "/{any:.*}", handler)
        setup(app, settings(**options.pop("settings", {})), **options)
        change_app(app)
        async with TestServer(app) as server, ClientSession(cookie_jar=DummyCookieJar()) as client:
            host = f"{server.host}:{server.port}"
            for _ in range(times):
                found = tokens
                if found is None:
                    found = [token(USER, method, token_target or target, host)]
                url = URL(f"http://{host}{target}", encoded=True)
                given = [("X-Session", text) for text in found] + list(dict(headers).items())
                async with client.request(
                    method, url, headers=given, allow_redirects=False
                ) as response:
                    answer = Answer(response.status, response.headers, await response.read())
            return answer

    return asyncio.run(run())


class Aiohttp(unittest.TestCase):
    def test_the_handler_gets_the_session_and_its_changes_are_sent(self) -> None:
        async def handler(request: Any) -> web.Response:
            session = await request.get_session()
            assert session is get_session(request)
            assert session is await request.get_session()
            session["cart"].append("pen")
            return web.json_response(session.user_id)

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = ask(handler, "POST", "/a%2Fb?x=%20y")
        self.assertEqual(found.field, {"set": {"cart": ["book", "pen"]}})
        self.assertEqual(found.body, b'"42"')

    def test_nothing_is_added_when_nothing_changed(self) -> None:
        async def handler(request: Any) -> web.Response:
            dict(await request.get_session())
            return web.Response()

        self.assertIsNone(ask(handler).field)

    def test_raised_answers_carry_the_change(self) -> None:
        for raised, status in (
            (web.HTTPFound("/"), 302),
            (web.HTTPSeeOther("/"), 303),
            (web.HTTPNotFound(), 404),
            (web.HTTPNoContent(), 204),
            (web.HTTPNotModified(), 304),
        ):

            async def handler(request: Any, raised: Any = raised) -> web.Response:
                (await request.get_session())["a"] = 1
                raise raised

            found = ask(handler)
            self.assertEqual((found.status, found.field), (status, {"set": {"a": 1}}))

    def test_an_error_of_500_carries_nothing(self) -> None:
        async def unavailable(request: Any) -> web.Response:
            (await request.get_session())["a"] = 1
            raise web.HTTPServiceUnavailable

        async def broken(request: Any) -> web.Response:
            (await request.get_session())["a"] = 1
            raise RuntimeError("as the test asks")

        found = ask(unavailable)
        self.assertEqual((found.status, found.field), (503, None))
        with self.assertLogs("aiohttp.server", "ERROR"):
            found = ask(broken)
        self.assertEqual((found.status, found.field), (500, None))

    def test_a_stream_carries_what_changed_before_its_head_and_refuses_the_rest(self) -> None:
        async def handler(request: Any) -> web.StreamResponse:
            session = await request.get_session()
            session["a"] = 1
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(b"one")
            try:
                session["b"] = 2
            except SessionClosed:
                await response.write(b"closed")
            return response

        found = ask(handler)
        self.assertEqual((found.field, found.body), ({"set": {"a": 1}}, b"oneclosed"))

    def test_a_change_in_place_that_came_too_late_is_logged(self) -> None:
        async def handler(request: Any) -> web.StreamResponse:
            session = await request.get_session()
            response = web.StreamResponse()
            await response.prepare(request)
            session["cart"].append("hunter2")
            return response

        with self.assertLogs("session_gateway_upstream", "ERROR") as logs:
            ask(handler)
        self.assertIn("'cart'", logs.output[0])
        self.assertNotIn("hunter2", logs.output[0])

    def test_a_change_that_cannot_be_sent_becomes_a_500(self) -> None:
        async def large(request: Any) -> web.Response:
            (await request.get_session())["a"] = "x" * 20_000
            return web.Response(text="whole")

        async def raised(request: Any) -> web.Response:
            (await request.get_session())["a"] = "x" * 20_000
            raise web.HTTPFound("/")

        async def mixed(request: Any) -> web.Response:
            (await request.get_session())["a"] = 1
            return web.Response(headers={"x-session-set": "{}"})

        async def stream(request: Any) -> web.StreamResponse:
            (await request.get_session())["a"] = "x" * 20_000
            response = web.StreamResponse()
            await response.prepare(request)
            raise AssertionError("the head went out")

        async def compressed(request: Any) -> web.StreamResponse:
            (await request.get_session())["a"] = "x" * 20_000
            response = web.StreamResponse()
            response.enable_compression(web.ContentCoding.gzip)
            await response.prepare(request)
            raise AssertionError("the head went out")

        async def counted(request: Any) -> web.StreamResponse:
            (await request.get_session())["a"] = "x" * 20_000
            response = web.StreamResponse(headers={"Content-Length": "3"})
            await response.prepare(request)
            raise AssertionError("the head went out")

        async def hidden(request: Any) -> web.StreamResponse:
            (await request.get_session())["a"] = "x" * 20_000
            try:
                await web.StreamResponse().prepare(request)
            except BadSessionChange:
                return web.Response(text="as if nothing had happened")
            raise AssertionError("the head went out")

        for handler in (large, raised, mixed, stream, compressed, counted, hidden):
            for times in (1, 2):
                with (
                    self.subTest(handler.__name__),
                    self.assertLogs("session_gateway_upstream") as logs,
                ):
                    found = ask(handler, times=times)
                    code = "x-session-set-twice" if handler is mixed else "x-session-set-too-large"
                    self.assertEqual((found.status, found.field, found.code), (500, None, code))
                    self.assertEqual(len(logs.output), times)
                    self.assertIn(code, logs.output[0])

    def test_an_error_that_the_handler_makes_is_the_handlers(self) -> None:
        async def handler(request: Any) -> web.Response:
            (await request.get_session())["_auth_user_id"] = "1"
            return web.Response()

        with self.assertLogs("aiohttp", "ERROR"):
            found = ask(handler)
        self.assertEqual((found.status, found.code), (500, None))

    def test_a_field_set_by_hand_is_left_alone(self) -> None:
        async def handler(request: Any) -> web.Response:
            return web.Response(headers={"X-Session-Set": '{"by":"hand"}'})

        self.assertEqual(ask(handler).field, {"by": "hand"})

    def test_a_response_of_another_middleware_carries_the_change(self) -> None:
        async def handler(request: Any) -> web.Response:
            (await request.get_session())["a"] = 1
            raise RuntimeError

        @web.middleware
        async def page(request: web.Request, handler: Any) -> web.StreamResponse:
            try:
                response: web.StreamResponse = await handler(request)
            except RuntimeError:
                response = web.Response(status=400, text="sorry")
            return response

        found = ask(handler, change_app=lambda app: app.middlewares.append(page))
        self.assertEqual((found.status, found.field), (400, {"set": {"a": 1}}))

    def test_middlewares_that_were_there_before_have_the_session_too(self) -> None:
        async def handler(_request: Any) -> web.Response:
            return web.Response()

        @web.middleware
        async def visits(request: Any, handler: Any) -> web.StreamResponse:
            (await request.get_session())["visits"] = 1
            response: web.StreamResponse = await handler(request)
            return response

        async def run() -> Any:
            app = web.Application(middlewares=[visits])
            app.router.add_get("/", handler)
            setup(app, settings())
            async with (
                TestServer(app) as server,
                ClientSession() as client,
                client.get(server.make_url("/"), headers={"X-Session": token()}) as found,
            ):
                return found.headers["X-Session-Set"]

        self.assertEqual(asyncio.run(run()), '{"set":{"visits":1}}')

    def test_handlers_of_sub_applications_have_the_session_too(self) -> None:
        async def handler(request: Any) -> web.Response:
            (await request.get_session())["a"] = 1
            return web.Response()

        async def never(_request: Any) -> web.Response:
            raise AssertionError("reached")

        async def run() -> Any:
            app, sub = web.Application(), web.Application()
            sub.router.add_get("/x", handler)
            setup(app, settings())
            app.add_subapp("/sub", sub)
            async with TestServer(app) as server, ClientSession() as client:
                url = server.make_url("/sub/x")
                async with client.get(url, headers={"X-Session": token()}) as response:
                    return response.headers["X-Session-Set"]

        self.assertEqual(asyncio.run(run()), '{"set":{"a":1}}')

    def test_a_request_that_is_refused_does_not_reach_the_handler(self) -> None:
        async def never(_request: Any) -> web.Response:
            raise AssertionError("reached")

        for tokens, code in (
            ([], "x-session-missing"),
            ([token(), token()], "x-session-twice"),
            ([token() + "x"], "x-session-signature"),
        ):
            with self.assertLogs("session_gateway_upstream", "WARNING") as logs:
                found = ask(never, target="/a?secret=1", tokens=tokens)
            self.assertEqual((found.status, found.code), (401, code))
            self.assertEqual(len(logs.output), 1)
            self.assertIn(code, logs.output[0])
            self.assertNotIn("secret", logs.output[0])

    def test_the_answer_to_a_refused_request_can_be_replaced(self) -> None:
        async def never(_request: Any) -> web.Response:
            raise AssertionError("reached")

        async def later(_request: Any, refused: Any) -> web.Response:
            return web.Response(status=403, text=refused.code)

        def at_once(_request: Any, refused: Any) -> web.Response:
            return web.Response(status=403, text=refused.code)

        def raised(_request: Any, refused: Any) -> web.Response:
            raise web.HTTPForbidden(text=refused.code)

        for on_refused in (later, at_once, raised):
            with self.assertLogs("session_gateway_upstream", "WARNING"):
                found = ask(never, tokens=[], on_refused=on_refused)
            self.assertEqual((found.status, found.body), (403, b"x-session-missing"))

    def test_a_token_of_another_request_is_refused(self) -> None:
        async def handler(_request: Any) -> web.Response:
            return web.Response()

        for target in ("/a%2Fb?x=%20y", "/caf%C3%A9", "/a;b=%zz"):
            self.assertEqual(ask(handler, "POST", target).status, 200)
        self.assertEqual(ask(handler, "GET", "/a", token_target="/b").status, 200)
        for method, headers in (("POST", {}), ("GET", {"Upgrade": "websocket"})):
            with self.assertLogs("session_gateway_upstream", "WARNING"):
                found = ask(handler, method, "/a", token_target="/b", headers=headers)
            self.assertEqual((found.status, found.code), (401, "x-session-other-request"))

    def test_a_function_for_keys_may_be_async(self) -> None:
        async def handler(request: Any) -> web.Response:
            return web.json_response((await request.get_session()).user_id)

        async def key(kid: str) -> str:
            await asyncio.sleep(0)
            return SECRET

        self.assertEqual(ask(handler, "POST", settings={"keys": key}).body, b'"42"')

    def test_an_exempt_path_passes_without_a_session(self) -> None:
        async def handler(request: Any) -> web.Response:
            found = 0
            try:
                await request.get_session()
            except SessionError:
                found += 1
            try:
                get_session(request)
            except SessionError:
                found += 1
            return web.json_response(found)

        found = ask(handler, target="/healthz", tokens=[], settings={"exempt": ["/healthz"]})
        self.assertEqual((found.status, found.body), (200, b"2"))

    def test_a_websocket_handshake_carries_the_change(self) -> None:
        async def handler(request: Any) -> web.WebSocketResponse:
            session = await request.get_session()
            session["seen"] = session.user_id
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            try:
                session["late"] = 1
            except SessionClosed:
                await socket.send_str("closed")
            return socket

        async def run() -> Any:
            app = web.Application()
            app.router.add_get("/", handler)
            setup(app, settings())
            async with TestServer(app) as server, ClientSession() as client:
                url = server.make_url("/")
                own = {"X-Session": token(host=f"{server.host}:{server.port}")}
                async with client.ws_connect(url, headers=own) as socket:
                    fields = socket._response.headers.getall("X-Session-Set")
                    return fields, await socket.receive_str()

        self.assertEqual(asyncio.run(run()), (['{"set":{"seen":"42"}}'], "closed"))

    def test_wrong_settings_are_told_at_once(self) -> None:
        with self.assertRaises(SettingsError):
            setup(web.Application(), None)  # type: ignore[arg-type]
        with self.assertRaises(SettingsError):
            setup(web.Application(), settings(), on_refused="x")  # type: ignore[arg-type]


if __name__ == "__main__":
    unittest.main()
