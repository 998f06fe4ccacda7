"""A small application in each server, for `test_servers.py`: `servers.py NAME FD`."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from session_gateway_upstream import asgi, wsgi
from support import settings


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    """Adds one, and tells the session."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    session = asgi.get_session(scope)
    session["cart"].append("pen")
    if scope["type"] == "websocket":
        await receive()
        if scope["path"].endswith("/refused"):
            await send({"type": "websocket.close", "code": 1008})
            return
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 1000})
        return
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


def wsgi_app(environ: Any, start_response: Any) -> Iterable[bytes]:
    """Does the same."""
    wsgi.get_session(environ)["cart"].append("pen")
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


application = wsgi.SessionMiddleware(wsgi_app, settings())
asgi_application = asgi.SessionMiddleware(asgi_app, settings())


def uvicorn(listener: socket.socket, **options: Any) -> None:
    import uvicorn

    app = asgi_application
    if "root_path" in options:
        app = asgi.SessionMiddleware(asgi_app, settings(), server_root_path=options["root_path"])
    asyncio.run(uvicorn.Server(uvicorn.Config(app, **options)).serve([listener]))


def hypercorn(listener: socket.socket) -> None:
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"fd://{os.dup(listener.fileno())}"]
    asyncio.run(serve(asgi_application, config))  # type: ignore[arg-type]


def gunicorn(listener: socket.socket, app: str, worker: str) -> None:
    bind = ["--bind", f"fd://{listener.fileno()}", "--worker-class", worker, "--workers", "1"]
    listener.set_inheritable(True)
    os.execv(sys.executable, [sys.executable, "-m", "gunicorn", *bind, f"servers:{app}"])


def waitress(listener: socket.socket) -> None:
    import waitress

    waitress.serve(application, sockets=[listener])


def werkzeug(listener: socket.socket) -> None:
    from werkzeug.serving import make_server

    make_server("127.0.0.1", 0, application, fd=listener.fileno()).serve_forever()


class _TellsTarget(WSGIRequestHandler):
    def get_environ(self) -> dict[str, Any]:
        return {**super().get_environ(), "RAW_URI": self.path}


def wsgiref(listener: socket.socket, handler: Any = WSGIRequestHandler) -> None:
    server = WSGIServer(("127.0.0.1", 0), handler)
    server.socket.close()
    server.socket = listener
    server.set_app(application)
    server.serve_forever()


SERVERS = {
    "uvicorn-h11": lambda listener: uvicorn(listener, http="h11", ws="websockets-sansio"),
    "uvicorn-httptools": lambda listener: uvicorn(listener, http="httptools", ws="wsproto"),
    "uvicorn-root-path": lambda listener: uvicorn(listener, http="httptools", root_path="/api"),
    "hypercorn": hypercorn,
    "gunicorn-asgi": lambda listener: gunicorn(listener, "asgi_application", "asgi"),
    "gunicorn-sync": lambda listener: gunicorn(listener, "application", "sync"),
    "gunicorn-gthread": lambda listener: gunicorn(listener, "application", "gthread"),
    "waitress": waitress,
    "werkzeug": werkzeug,
    "wsgiref": wsgiref,
    "wsgiref-with-raw-uri": lambda listener: wsgiref(listener, _TellsTarget),
}

if __name__ == "__main__":
    SERVERS[sys.argv[1]](socket.socket(fileno=int(sys.argv[2])))
