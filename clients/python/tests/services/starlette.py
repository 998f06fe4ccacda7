"""The test service with Starlette."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from typing import Any, Callable

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

import service
from session_gateway_upstream.asgi import SessionMiddleware


async def healthz(_request: Request) -> Response:
    return PlainTextResponse("ok")


async def show(request: Request) -> Response:
    session = await request.state.get_session()
    return JSONResponse(service.told("starlette", session))


async def act(request: Request) -> Response:
    session = await request.state.get_session()
    name, key = request.path_params["act"], request.path_params.get("key", "")
    answer = service.change(session, name, key, await request.body())
    if answer is None:
        raise HTTPException(404)
    return JSONResponse(answer)


async def guarded(request: Request) -> Response:
    session = await request.state.get_session()
    await anyio.to_thread.run_sync(service.change_first, request.headers)
    return JSONResponse(service.count(session, request.path_params["key"]))


async def redirect(request: Request) -> Response:
    session = await request.state.get_session()
    session[request.path_params["key"]] = await request.json()
    raise HTTPException(303, headers={"Location": "/session"})


async def stream(request: Request) -> Response:
    session = await request.state.get_session()
    session[request.path_params["key"]] = await request.json()

    async def chunks() -> AsyncIterator[str]:
        for chunk in ("one", "two", "three"):
            yield chunk

    return StreamingResponse(chunks())


async def late(request: Request) -> Response:
    session = await request.state.get_session()

    async def chunks() -> AsyncIterator[str]:
        yield "start;"
        yield service.late(session, request.path_params["key"])

    return StreamingResponse(chunks())


async def fail(request: Request) -> Response:
    session = await request.state.get_session()
    session[request.path_params["key"]] = "fail"
    raise RuntimeError("as the test asks")


async def mixed(request: Request) -> Response:
    session = await request.state.get_session()
    session[request.path_params["key"]] = "mixed"
    return Response(headers={"X-Session-Set": '{"set":{"by_hand":1}}'})


app = Starlette(
    routes=[
        Route("/healthz", healthz),
        Route("/session", show),
        *(
            Route(f"/{name}/{{key}}", handler, methods=["POST"])
            for name, handler in (
                ("guarded", guarded),
                ("redirect", redirect),
                ("stream", stream),
                ("late", late),
                ("fail", fail),
                ("mixed", mixed),
            )
        ),
        Route("/{act}", act, methods=["POST"]),
        Route("/{act}/{key}", act, methods=["POST"]),
    ],
    middleware=[Middleware(SessionMiddleware, settings=service.settings())],
)


def serve(listener: socket.socket, ready: Callable[[], None]) -> Any:
    service.serve_asgi(app, listener, ready)
