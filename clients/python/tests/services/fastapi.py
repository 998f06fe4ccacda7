"""The test service with FastAPI."""

# Without `from __future__ import annotations`: FastAPI reads the annotations when it runs.
import socket
from collections.abc import Iterator
from typing import Any, Callable

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import PlainTextResponse, StreamingResponse

import service
from session_gateway_upstream.asgi import SessionMiddleware
from session_gateway_upstream.fastapi import CurrentSession

app = FastAPI()
app.add_middleware(SessionMiddleware, settings=service.settings())


@app.get("/healthz", response_class=PlainTextResponse)
def healthz() -> str:
    return "ok"


@app.api_route("/session", methods=["GET", "HEAD"])
def show(session: CurrentSession) -> dict[str, Any]:
    return service.told("fastapi", session)


@app.post("/guarded/{key}")
async def guarded(key: str, request: Request, session: CurrentSession) -> dict[str, Any]:
    await run_in_threadpool(service.change_first, request.headers)
    return service.count(session, key)


@app.post("/redirect/{key}")
async def redirect(key: str, request: Request, session: CurrentSession) -> None:
    session[key] = await request.json()
    raise HTTPException(303, headers={"Location": "/session"})


@app.post("/stream/{key}")
async def stream(key: str, request: Request, session: CurrentSession) -> StreamingResponse:
    session[key] = await request.json()
    return StreamingResponse(iter(["one", "two", "three"]))


@app.post("/late/{key}")
def late(key: str, session: CurrentSession) -> StreamingResponse:
    def chunks() -> Iterator[str]:
        yield "start;"
        yield service.late(session, key)

    return StreamingResponse(chunks())


@app.post("/fail/{key}")
def fail(key: str, session: CurrentSession) -> None:
    session[key] = "fail"
    raise RuntimeError("as the test asks")


@app.post("/mixed/{key}")
def mixed(key: str, response: Response, session: CurrentSession) -> None:
    session[key] = "mixed"
    response.headers["X-Session-Set"] = '{"set":{"by_hand":1}}'


@app.post("/{act}")
@app.post("/{act}/{key}")
async def act(act: str, request: Request, session: CurrentSession, key: str = "") -> dict[str, Any]:
    answer = service.change(session, act, key, await request.body())
    if answer is None:
        raise HTTPException(404)
    return answer


def serve(listener: socket.socket, ready: Callable[[], None]) -> None:
    service.serve_asgi(app, listener, ready)
