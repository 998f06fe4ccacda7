"""The test service with Flask."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any, Callable, NoReturn

from flask import Flask, Response, abort, redirect, request
from werkzeug.serving import make_server

import service
from session_gateway_upstream.flask import SessionMiddleware, get_session

app = Flask(__name__)
app.wsgi_app = SessionMiddleware(app.wsgi_app, service.settings())  # type: ignore[method-assign]


@app.get("/healthz")
def healthz() -> str:
    return "ok"


@app.get("/session")
def show() -> dict[str, Any]:
    return service.told("flask", get_session())


@app.post("/guarded/<key>")
def guarded(key: str) -> dict[str, Any]:
    session = get_session()
    service.change_first(request.headers)
    return service.count(session, key)


@app.post("/redirect/<key>")
def go(key: str) -> NoReturn:
    get_session()[key] = request.get_json(force=True)
    abort(redirect("/session", 303))


@app.post("/stream/<key>")
def stream(key: str) -> Response:
    get_session()[key] = request.get_json(force=True)
    return Response(iter(["one", "two", "three"]))


@app.post("/late/<key>")
def late(key: str) -> Response:
    session = get_session()

    def chunks() -> Iterator[str]:
        yield "start;"
        yield service.late(session, key)

    return Response(chunks())


@app.post("/fail/<key>")
def fail(key: str) -> NoReturn:
    get_session()[key] = "fail"
    raise RuntimeError("as the test asks")


@app.post("/mixed/<key>")
def mixed(key: str) -> Response:
    get_session()[key] = "mixed"
    return Response(headers={"X-Session-Set": '{"set":{"by_hand":1}}'})


@app.post("/<act>", defaults={"key": ""})
@app.post("/<act>/<key>")
def act(act: str, key: str) -> dict[str, Any]:
    answer = service.change(get_session(), act, key, request.get_data())
    if answer is None:
        abort(404)
    return answer


def serve(listener: socket.socket, ready: Callable[[], None]) -> None:
    server = make_server("127.0.0.1", 0, app, threaded=True, fd=listener.fileno())
    ready()
    server.serve_forever()
