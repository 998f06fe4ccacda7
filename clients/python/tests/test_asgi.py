import asyncio
import contextlib
import functools
import json
import unittest
from collections.abc import AsyncIterator, Awaitable
from typing import Any, Callable, Optional

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from session_gateway_upstream import Session, SessionClosed, SessionError, SettingsError
from session_gateway_upstream.asgi import SessionMiddleware, get_session
from support import (
    HEAD,
    HOST,
    KID,
    SECRET,
    TOO_LARGE,
    USER,
    claims,
    session,
    settings,
    signed,
    token,
)

App = Callable[..., Awaitable[None]]


def http(
    app: Any,
    method: str = "GET",
    target: str = "/",
    tokens: Optional[list[str]] = None,
    visitor: dict[str, Any] = USER,
    **scope: Any,
) -> list[dict[str, Any]]:
    """What the server is told to send."""
    path, _, query = target.partition("?")
    if tokens is None:
        tokens = [token(visitor, method, target)]
    given = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(b"host", HOST.encode()), *((b"x-session", t.encode()) for t in tokens)],
        **scope,
    }
    return run(app, given, [{"type": "http.request", "body": b"", "more_body": False}])


def websocket(app: Any, denial: bool = True, tokens: Optional[list[str]] = None) -> Any:
    found = [token(target="/ws")] if tokens is None else tokens
    scope = {
        "type": "websocket",
        "path": "/ws",
        "raw_path": b"/ws",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", HOST.encode()), *((b"x-session", t.encode()) for t in found)],
        "subprotocols": [],
        "extensions": {"websocket.http.response": {}} if denial else {},
    }
    return run(app, scope, [{"type": "websocket.connect"}])


def run(app: Any, scope: Any, coming: list[Any]) -> list[dict[str, Any]]:
    gone: list[dict[str, Any]] = []

    async def receive() -> Any:
        if coming:
            return coming.pop(0)
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        gone.append(dict(message))

    asyncio.run(app(scope, receive, send))
    return gone


def field(gone: list[dict[str, Any]]) -> Any:
    """The X-Session-Set of the head; None for none."""
    found = [value for name, value in gone[0]["headers"] if name.lower() == b"x-session-set"]
    assert len(found) < 2, found
    return json.loads(found[0]) if found else None


def answer(
    change: Callable[[Session], Any],
    status: int = 200,
    headers: Any = (),
    given: Any = None,
    **options: Any,
) -> SessionMiddleware:
    """An application that changes the session, and answers."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        change(get_session(scope))
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        await send({"type": "http.response.body", "body": b"whole"})

    return SessionMiddleware(app, given or settings(), **options)


def starlette(*routes: Any, **options: Any) -> Starlette:
    app = Starlette(routes=list(routes), **options)
    app.add_middleware(SessionMiddleware, settings=settings(exempt=["/healthz"]))
    return app


class Asgi(unittest.TestCase):
    def test_the_handler_gets_the_session_and_its_changes_are_sent(self) -> None:
        async def handler(request: Request) -> JSONResponse:
            session = await request.state.get_session()
            assert session is get_session(request)
            assert session is await request.state.get_session()
            session["cart"].append("pen")
            return JSONResponse(session.user_id)

        gone = http(starlette(Route("/", handler)))
        self.assertEqual(field(gone), {"set": {"cart": ["book", "pen"]}})
        self.assertEqual(gone[1]["body"], b'"42"')

    def test_nothing_is_added_when_nothing_changed(self) -> None:
        gone = http(answer(dict, headers=[(b"a", b"b")]))
        self.assertEqual(gone[0]["headers"], [(b"a", b"b")])

    def test_redirects_carry_the_change_returned_or_raised(self) -> None:
        async def returned(request: Request) -> RedirectResponse:
            (await request.state.get_session())["a"] = 1
            return RedirectResponse("/", 303)

        async def raised(request: Request) -> None:
            (await request.state.get_session())["a"] = 1
            raise HTTPException(303, headers={"Location": "/"})

        for handler in (returned, raised):
            gone = http(starlette(Route("/", handler)))
            self.assertEqual((gone[0]["status"], field(gone)), (303, {"set": {"a": 1}}))

    def test_errors_below_500_and_answers_without_a_body_carry_the_change(self) -> None:
        for status in (204, 304, 404, 409):
            gone = http(answer(lambda s: s.update(a=1), status))
            self.assertEqual(field(gone), {"set": {"a": 1}})
        gone = http(answer(lambda s: s.update(a=1)), "HEAD")
        self.assertEqual(field(gone), {"set": {"a": 1}})

    def test_an_error_of_500_carries_nothing(self) -> None:
        self.assertIsNone(field(http(answer(lambda s: s.update(a=1), 503))))

        async def handler(request: Request) -> None:
            (await request.state.get_session())["a"] = 1
            raise RuntimeError

        async def page(_request: Request, _error: Exception) -> JSONResponse:
            return JSONResponse("sorry", 500)

        async def quiet(scope: Any, receive: Any, send: Any) -> None:
            with contextlib.suppress(RuntimeError):
                await starlette(Route("/", handler), exception_handlers={500: page})(
                    scope, receive, send
                )

        gone = http(quiet)
        self.assertEqual((gone[0]["status"], field(gone)), (500, None))

    def test_a_stream_carries_what_changed_before_its_head_and_refuses_the_rest(self) -> None:
        caught = []

        async def handler(request: Request) -> StreamingResponse:
            session = await request.state.get_session()
            session["a"] = 1

            async def chunks() -> AsyncIterator[str]:
                yield "one"
                try:
                    session["b"] = 2
                except SessionClosed as error:
                    caught.append(error)

            return StreamingResponse(chunks())

        gone = http(starlette(Route("/", handler)))
        self.assertEqual(field(gone), {"set": {"a": 1}})
        self.assertEqual(len(caught), 1)

    def test_a_change_in_place_that_came_too_late_is_logged(self) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            session = get_session(scope)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            session["cart"].append("hunter2")

        with self.assertLogs("session_gateway_upstream", "ERROR") as logs:
            http(SessionMiddleware(app, settings()))
        self.assertIn("'cart'", logs.output[0])
        self.assertNotIn("hunter2", logs.output[0])

    def test_a_change_that_cannot_be_sent_becomes_a_500(self) -> None:
        for change, headers, code in (
            (lambda s: s.update(a="x" * 20_000), [], "x-session-set-too-large"),
            (lambda s: s["cart"].append(float("nan")), [], "x-session-set-invalid"),
            (lambda s: s.update(a=1), [(b"X-Session-Set", b"{}")], "x-session-set-twice"),
        ):
            with self.assertLogs("session_gateway_upstream", "ERROR") as logs:
                gone = http(answer(change, headers=headers))
            self.assertEqual(len(logs.output), 1)
            self.assertIn(code, logs.output[0])
            self.assertEqual(
                [message["type"][5:] for message in gone], ["response.start", "response.body"]
            )
            self.assertEqual((gone[0]["status"], field(gone)), (500, None))
            self.assertEqual(json.loads(gone[1]["body"]), {"code": code})

    def test_a_handler_is_ended_when_its_change_cannot_be_sent(self) -> None:
        ended = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            get_session(scope)["a"] = "x" * 20_000
            for _ in range(2):
                try:
                    await send({"type": "http.response.start", "status": 200, "headers": []})
                except SessionError as error:
                    ended.append(error)
            raise RuntimeError("what became of it")

        with self.assertLogs("session_gateway_upstream", "ERROR"):
            gone = http(SessionMiddleware(app, settings()))
        self.assertEqual(len(ended), 2)
        self.assertEqual([m.get("status") for m in gone], [500, None])

    def test_a_field_set_by_hand_is_left_alone(self) -> None:
        gone = http(answer(dict, headers=[(b"x-session-set", b'{"touch":1}')]))
        self.assertEqual(field(gone), {"touch": 1})

    def test_a_request_that_is_refused_does_not_reach_the_handler(self) -> None:
        def never(_session: Session) -> None:
            raise AssertionError("reached")

        for tokens, code in (
            ([], "x-session-missing"),
            ([token(), token()], "x-session-twice"),
            ([token() + "x"], "x-session-signature"),
            ([token({**USER, "aud": "x"})], "x-session-audience"),
        ):
            with self.assertLogs("session_gateway_upstream", "WARNING") as logs:
                gone = http(answer(never), target="/a?secret=1", tokens=tokens)
            self.assertEqual(gone[0]["status"], 401)
            self.assertEqual(gone[1]["body"], f'{{"code":"{code}"}}'.encode())
            self.assertEqual(len(logs.output), 1)
            self.assertIn(code, logs.output[0])
            self.assertIn("'/a'", logs.output[0])
            self.assertNotIn("secret", logs.output[0])

    def test_the_answer_to_a_refused_request_can_be_replaced(self) -> None:
        async def later(scope: Any, refused: Any) -> Any:
            return JSONResponse([scope["path"], refused.code], 403)

        def at_once(scope: Any, refused: Any) -> Any:
            return JSONResponse([scope["path"], refused.code], 403)

        for on_refused in (later, at_once):
            app = answer(dict, on_refused=on_refused)
            with self.assertLogs("session_gateway_upstream", "WARNING"):
                gone = http(app, tokens=[])
            self.assertEqual(gone[0]["status"], 403)
            self.assertEqual(json.loads(gone[1]["body"]), ["/", "x-session-missing"])

    def test_an_exempt_path_passes_without_a_session(self) -> None:
        async def handler(request: Request) -> JSONResponse:
            found = []
            try:
                await request.state.get_session()
            except SessionError as error:
                found.append(str(error))
            try:
                get_session(request)
            except SessionError as error:
                found.append(str(error))
            return JSONResponse(found)

        left_over: dict[str, Any] = {"session_gateway_upstream.session": session()}
        for scope in ({}, left_over):
            app = starlette(Route("/healthz", handler))
            gone = http(app, target="/healthz", tokens=[], **scope)
            self.assertEqual(gone[0]["status"], 200)
            self.assertEqual(len(json.loads(gone[1]["body"])), 2)

    def test_the_request_is_compared_by_its_raw_target(self) -> None:
        app = answer(dict)
        for target in ("/a%2Fb?x=%20y", "/caf%C3%A9", "/a?"):
            self.assertEqual(http(app, "POST", target)[0]["status"], 200)
        raw = {"raw_path": b"/caf\xe9", "path": "/caf\ufffd"}
        self.assertEqual(http(app, "POST", "/caf\xe9", **raw)[0]["status"], 200)
        other = [token(method="POST", target="/other")]
        for scope in (
            {},
            {"raw_path": b"/x"},
            {"raw_path": None},
            {"raw_path": b""},
            {"headers": []},
        ):
            with self.assertLogs("session_gateway_upstream", "WARNING"):
                gone = http(app, "POST", "/a", other, **scope)
            self.assertEqual(gone[0]["status"], 401)
        with self.assertLogs("session_gateway_upstream", "WARNING") as logs:
            http(app, "POST", "/a", raw_path=None)
        self.assertIn("raw target", logs.output[0])

    def test_the_servers_root_path_is_cut_off_if_it_is_said(self) -> None:
        scope = {"path": "/api/a", "raw_path": b"/api/a", "root_path": "/api"}
        said = answer(dict, server_root_path="/api/")
        self.assertEqual(http(said, "POST", "/a", **scope)[0]["status"], 200)
        for app, target in ((answer(dict), "/a"), (said, "/api/a")):
            with self.assertLogs("session_gateway_upstream", "WARNING") as logs:
                self.assertEqual(http(app, "POST", target, **scope)[0]["status"], 401)
            self.assertIn("server_root_path", logs.output[0])
        with self.assertLogs("session_gateway_upstream", "WARNING"):
            gone = http(said, "POST", "/b", path="/b", raw_path=b"/b")
            self.assertEqual(gone[0]["status"], 401)
            gone = http(said, "POST", "/b", path="/xyz/b", raw_path=b"/xyz/b")
            self.assertEqual(gone[0]["status"], 401)
        exempt = answer(dict, given=settings(exempt=["/a"]), server_root_path="/api")
        with self.assertRaises(SessionError):
            http(exempt, "POST", "/a", [], **scope)

    def test_lifespan_passes(self) -> None:
        seen = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            seen.append(scope)

        scope = {"type": "lifespan"}
        run(SessionMiddleware(app, settings()), scope, [])
        self.assertIs(seen[0], scope)
        self.assertEqual(scope, {"type": "lifespan"})

    def test_wrong_settings_are_told_at_once(self) -> None:
        for wrong in (None, {"keys": {}}):
            with self.assertRaises(SettingsError):
                SessionMiddleware(answer(dict), wrong)  # type: ignore[arg-type]
        with self.assertRaises(SettingsError):
            SessionMiddleware(answer(dict), settings(), on_refused="x")  # type: ignore[arg-type]


class SharedState(unittest.TestCase):
    """Hypercorn before 0.18 gives all requests of a connection one dict as their state."""

    ORDERS = (("1", "2", "3"), ("3", "2", "1"), ("2", "3", "1"))

    def together(self, app: Any, state: Any, order: tuple[str, ...]) -> dict[str, list[Any]]:
        """What each visitor is told. All are in the handler at once, which they enter and leave
        in this order."""
        told: dict[str, list[Any]] = {}

        async def ask(who: str, entered: asyncio.Event, leave: asyncio.Event) -> None:
            async def receive() -> Any:
                entered.set()
                await leave.wait()
                return {"type": "http.request", "body": b"", "more_body": False}

            async def send(message: Any) -> None:
                if message["type"] == "http.response.body":
                    told[who] = json.loads(message["body"])

            text = token({**USER, "sub": who})
            headers = [(b"host", HOST.encode()), (b"x-session", text.encode())]
            common = {"raw_path": b"/", "query_string": b"", "root_path": "", "state": state}
            scope = {"type": "http", "method": "GET", "path": "/", "headers": headers, **common}
            await app(scope, receive, send)

        async def all_of_them() -> None:
            tasks, doors = [], []
            for who in order:
                entered, leave = asyncio.Event(), asyncio.Event()
                tasks.append(asyncio.create_task(ask(who, entered, leave)))
                doors.append(leave)
                await entered.wait()
            for task, leave in zip(tasks, doors):
                leave.set()
                await task

        asyncio.run(all_of_them())
        return told

    def test_each_request_gets_its_own_session_in_any_order(self) -> None:
        from fastapi import FastAPI

        from session_gateway_upstream.fastapi import CurrentSession

        async def handler(request: Request) -> JSONResponse:
            first = await request.state.get_session()
            await request.body()
            again = await request.state.get_session()
            anew = await Request(request.scope).state.get_session()
            found = (first, again, anew, get_session(request))
            return JSONResponse([session.user_id for session in found])

        fast = FastAPI()
        fast.add_middleware(SessionMiddleware, settings=settings())

        @fast.get("/")
        async def show(request: Request, session: CurrentSession) -> Any:
            await request.body()
            again = await request.state.get_session()
            return [session.user_id, again.user_id]

        for app in (starlette(Route("/", handler)), fast):
            for order in self.ORDERS:
                # Another application of the connection may have put one there, too.
                for state in ({}, {"get_session": None}, {"of": "lifespan"}):
                    told = self.together(app, state, order)
                    for who in order:
                        self.assertEqual(set(told[who]), {who})

    def test_what_has_no_session_finds_none_of_another_request(self) -> None:
        async def handler(request: Request) -> JSONResponse:
            return JSONResponse((await request.state.get_session()).user_id)

        async def outside(scope: Any, receive: Any, send: Any) -> None:
            self.assertFalse(hasattr(Request(scope).state, "get_session"))
            await JSONResponse("")(scope, receive, send)

        async def refuse(scope: Any, refused: Any) -> Any:
            with self.assertRaises(SessionError):
                await Request(scope).state.get_session()
            return JSONResponse("", 401)

        async def exempt(request: Request) -> JSONResponse:
            with self.assertRaises(SessionError):
                await request.state.get_session()
            return JSONResponse("")

        state: dict[str, Any] = {}
        app = Starlette(routes=[Route("/", handler), Route("/healthz", exempt)])
        inside = SessionMiddleware(app, settings(exempt=["/healthz"]), on_refused=refuse)
        self.assertEqual(http(inside, state=state)[1]["body"], b'"42"')
        self.assertEqual(http(outside, tokens=[], state=state)[0]["status"], 200)
        healthy = http(inside, target="/healthz", tokens=[], state=state)
        self.assertEqual(healthy[0]["status"], 200)
        with self.assertLogs("session_gateway_upstream", "WARNING"):
            self.assertEqual(http(inside, tokens=[], state=state)[0]["status"], 401)
        self.assertEqual(state, {})

    def test_middleware_around_has_the_session_of_the_scope(self) -> None:
        seen = []

        class Outer(BaseHTTPMiddleware):
            async def dispatch(self, request: Request, call_next: Any) -> Any:
                request.state.outer = 1
                response = await call_next(request)
                seen.append(get_session(request.scope).user_id)
                seen.append(hasattr(request.state, "get_session"))
                return response

        async def handler(request: Request) -> JSONResponse:
            return JSONResponse((await request.state.get_session()).user_id)

        app = starlette(Route("/", handler))
        app.add_middleware(Outer)
        self.assertEqual(http(app)[0]["status"], 200)
        self.assertEqual(seen, ["42", False])

    def test_what_handlers_put_into_the_state_is_seen_by_middleware_around(self) -> None:
        seen = []

        class Outer(BaseHTTPMiddleware):
            async def dispatch(self, request: Request, call_next: Any) -> Any:
                request.state.outer = 1
                response = await call_next(request)
                seen.append((request.state.handler, hasattr(request.state, "gone")))
                seen.append(request.state.later)
                return response

        async def handler(request: Request) -> JSONResponse:
            request.state.handler = request.state.of_lifespan + request.state.outer
            request.state.gone = 1
            del request.state.gone
            names = {"of_lifespan", "outer", "handler", "get_session"}
            state = request.scope["state"]
            self.assertEqual((set(state), len(state), set(state.copy())), (names, 4, names))
            for joined in (state | {"new": 1}, {"new": 0} | state | {"new": 1}):
                self.assertEqual((set(joined), joined["new"]), (names | {"new"}, 1))
            self.assertEqual(({"outer": 5} | state)["outer"], 1)
            for wrong in (lambda: state | 1, lambda: 1 | state):
                with self.assertRaises(TypeError):
                    wrong()
            request.scope["state"] |= {"later": 1}
            self.assertIs(request.scope["state"], state)
            request.state.get_session = None
            self.assertIsNone(request.state.get_session)
            return JSONResponse("")

        app = starlette(Route("/", handler))
        app.add_middleware(Outer)
        state: dict[str, Any] = {"of_lifespan": 1}
        self.assertEqual(http(app, state=state)[0]["status"], 200)
        self.assertEqual(seen, [(2, False), 1])
        self.assertNotIn("get_session", state)


class Keys(unittest.TestCase):
    def test_a_function_for_keys_may_be_async(self) -> None:
        async def key(kid: str) -> Optional[str]:
            await asyncio.sleep(0)
            return {KID: SECRET}.get(kid)

        for keys in (key, lambda kid: key(kid), functools.partial(key)):
            app = answer(lambda s: s.update(a=1), given=settings(keys=keys))
            self.assertEqual(field(http(app, "POST", "/a")), {"set": {"a": 1}})
            unknown = signed({**HEAD, "kid": "other"}, claims())
            with self.assertLogs("session_gateway_upstream", "WARNING"):
                gone = http(app, tokens=[unknown])
            self.assertEqual(json.loads(gone[1]["body"]), {"code": "x-session-unknown-kid"})

    def test_requests_do_not_wait_for_the_key_of_another(self) -> None:
        async def both() -> list[str]:
            done: list[str] = []
            known = asyncio.Event()

            async def key(kid: str) -> str:
                if kid == "slow":
                    await known.wait()
                return SECRET

            async def ask(kid: str) -> None:
                await settings(keys=key).averify(signed({**HEAD, "kid": kid}, claims()))
                done.append(kid)
                known.set()

            await asyncio.gather(ask("slow"), ask("fast"))
            return done

        self.assertEqual(asyncio.run(both()), ["fast", "slow"])


class WebSockets(unittest.TestCase):
    def test_a_token_of_another_request_opens_no_handshake(self) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "websocket.accept"})

        copied = [token(target="/other")]
        upgrade = (b"Upgrade", b"websocket")
        headers = [(b"host", HOST.encode()), (b"x-session", copied[0].encode())]
        with self.assertLogs("session_gateway_upstream", "WARNING"):
            gone = websocket(SessionMiddleware(app, settings()), tokens=copied)
            self.assertEqual((gone[0]["status"], len(gone)), (401, 2))
            self.assertEqual(json.loads(gone[1]["body"]), {"code": "x-session-other-request"})
            gone = http(answer(dict), headers=[*headers, upgrade])
            self.assertEqual(gone[0]["status"], 401)
        self.assertEqual(http(answer(dict), headers=headers)[0]["status"], 200)
        free = SessionMiddleware(app, settings(check_request="never"))
        self.assertEqual(websocket(free, tokens=copied)[0]["type"], "websocket.accept")

    def test_a_handshake_reads_the_session_and_carries_its_change(self) -> None:
        async def handler(socket: WebSocket) -> None:
            session = await socket.state.get_session()
            session["seen"] = session.user_id
            await socket.accept()
            try:
                session["late"] = 1
            except SessionClosed:
                await socket.send_text("closed")
            await socket.close()

        gone = websocket(starlette(WebSocketRoute("/ws", handler)))
        self.assertEqual(field(gone), {"set": {"seen": "42"}})
        self.assertEqual([m.get("text") for m in gone], [None, "closed", None])

    def test_a_handshake_without_a_token_is_refused(self) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            raise AssertionError("reached")

        with self.assertLogs("session_gateway_upstream", "WARNING"):
            gone = websocket(SessionMiddleware(app, settings()), tokens=[])
            self.assertEqual(gone[0]["type"], "websocket.http.response.start")
            self.assertEqual(gone[0]["status"], 401)
            self.assertEqual(json.loads(gone[1]["body"]), {"code": "x-session-missing"})
            gone = websocket(SessionMiddleware(app, settings()), denial=False, tokens=[])
            self.assertEqual([m["type"] for m in gone], ["websocket.close"])
            hooked = SessionMiddleware(
                app, settings(), on_refused=lambda _scope, _refused: JSONResponse(1, 418)
            )
            self.assertEqual(websocket(hooked, tokens=[])[0]["status"], 418)

    def test_a_handshake_that_the_handler_refuses_carries_the_change(self) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            get_session(scope)["a"] = 1
            await send({"type": "websocket.close", "code": 1008})

        gone = websocket(SessionMiddleware(app, settings()))
        self.assertEqual((gone[0]["status"], field(gone)), (403, {"set": {"a": 1}}))
        with self.assertLogs("session_gateway_upstream", "ERROR") as logs:
            gone = websocket(SessionMiddleware(app, settings()), denial=False)
        self.assertEqual([m["type"] for m in gone], ["websocket.close"])
        self.assertIn("lost", logs.output[0])

    def test_a_change_that_cannot_be_sent_ends_the_handshake(self) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            get_session(scope)["a"] = "x" * 20_000
            await send({"type": "websocket.accept"})

        with self.assertLogs("session_gateway_upstream", "ERROR"):
            self.assertEqual(websocket(SessionMiddleware(app, settings()))[0]["status"], 500)
            gone = websocket(SessionMiddleware(app, settings()), denial=False)
        self.assertEqual([m["type"] for m in gone], ["websocket.close"])


class FastApi(unittest.TestCase):
    def test_the_dependency_gives_the_session(self) -> None:
        from fastapi import FastAPI

        from session_gateway_upstream.fastapi import CurrentSession

        app = FastAPI()
        app.add_middleware(SessionMiddleware, settings=settings())

        @app.post("/visit")
        def visit(session: CurrentSession) -> Any:
            session["visits"] = 1
            return dict(session)

        @app.websocket("/ws")
        async def ws(socket: WebSocket, session: CurrentSession) -> None:
            session["seen"] = session.user_id
            await socket.accept()

        gone = http(app, "POST", "/visit")
        self.assertEqual(field(gone), {"set": {"visits": 1}})
        self.assertEqual(json.loads(gone[1]["body"]), {"cart": ["book"], "lang": "fr", "visits": 1})
        self.assertEqual(field(websocket(app)), {"set": {"seen": "42"}})
        self.assertEqual(app.openapi()["paths"]["/visit"]["post"].get("parameters"), None)

    def test_a_dependency_that_changes_the_session_after_its_yield_is_told_so(self) -> None:
        from fastapi import Depends, FastAPI

        from session_gateway_upstream.fastapi import CurrentSession

        app = FastAPI()
        app.add_middleware(SessionMiddleware, settings=settings())
        caught = []

        async def around(session: CurrentSession) -> AsyncIterator[None]:
            session["before"] = 1
            yield
            try:
                session["after"] = 1
            except SessionClosed as error:
                caught.append(error)

        @app.get("/", dependencies=[Depends(around)])
        def show() -> Any:
            return ""

        self.assertEqual(field(http(app)), {"set": {"before": 1}})
        self.assertEqual(len(caught), 1)

    def test_contents_that_are_withheld_become_a_500_and_not_an_empty_session(self) -> None:
        from fastapi import FastAPI

        from session_gateway_upstream.fastapi import CurrentSession

        app = FastAPI()
        app.add_middleware(SessionMiddleware, settings=settings())

        @app.get("/")
        def show(session: CurrentSession) -> Any:
            return session.get("cart", [])

        async def quiet(scope: Any, receive: Any, send: Any) -> None:
            with contextlib.suppress(SessionError):
                await app(scope, receive, send)

        self.assertEqual(http(quiet, visitor=TOO_LARGE)[0]["status"], 500)


if __name__ == "__main__":
    unittest.main()
