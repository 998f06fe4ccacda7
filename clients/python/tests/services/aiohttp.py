"""The test service with aiohttp."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Callable

from aiohttp import web

import service
from session_gateway_upstream.aiohttp import setup

routes = web.RouteTableDef()


@routes.get("/healthz")
async def healthz(_request: web.Request) -> web.Response:
    return web.Response(text="ok")


@routes.get("/session")
async def show(request: Any) -> web.Response:
    session = await request.get_session()
    return web.json_response(service.told("aiohttp", session))


@routes.post("/guarded/{key}")
async def guarded(request: Any) -> web.Response:
    session = await request.get_session()
    await asyncio.to_thread(service.change_first, request.headers)
    return web.json_response(service.count(session, request.match_info["key"]))


@routes.post("/redirect/{key}")
async def redirect(request: Any) -> web.Response:
    session = await request.get_session()
    session[request.match_info["key"]] = await request.json()
    raise web.HTTPSeeOther("/session")


@routes.post("/stream/{key}")
async def stream(request: Any) -> web.StreamResponse:
    session = await request.get_session()
    session[request.match_info["key"]] = await request.json()
    response = web.StreamResponse()
    await response.prepare(request)
    for chunk in (b"one", b"two", b"three"):
        await response.write(chunk)
    return response


@routes.post("/late/{key}")
async def late(request: Any) -> web.StreamResponse:
    session = await request.get_session()
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"start;")
    await response.write(service.late(session, request.match_info["key"]).encode())
    return response


@routes.post("/fail/{key}")
async def fail(request: Any) -> web.Response:
    session = await request.get_session()
    session[request.match_info["key"]] = "fail"
    raise RuntimeError("as the test asks")


@routes.post("/mixed/{key}")
async def mixed(request: Any) -> web.Response:
    session = await request.get_session()
    session[request.match_info["key"]] = "mixed"
    return web.Response(headers={"X-Session-Set": '{"set":{"by_hand":1}}'})


@routes.post("/{act}")
@routes.post("/{act}/{key}")
async def act(request: Any) -> web.Response:
    session = await request.get_session()
    name, key = request.match_info["act"], request.match_info.get("key", "")
    answer = service.change(session, name, key, await request.read())
    if answer is None:
        raise web.HTTPNotFound
    return web.json_response(answer)


app = web.Application()
app.add_routes(routes)
setup(app, service.settings())


def serve(listener: socket.socket, ready: Callable[[], None]) -> None:
    async def run() -> None:
        runner = web.AppRunner(app)
        await runner.setup()
        await web.SockSite(runner, listener).start()
        ready()
        await asyncio.Event().wait()

    asyncio.run(run())
