"""The program that the tests walk through, with each framework: `service.py FRAMEWORK`.

Prints `listening on 127.0.0.1:PORT`, logs to standard error, and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import logging
import os
import socket
import sys
import threading
import urllib.error
import urllib.request
from typing import Any, Callable

from session_gateway_upstream import Session, SessionClosed, SessionWithheld, Settings

FRAMEWORKS = ("starlette", "fastapi", "aiohttp", "flask")
PATIENCE_SECONDS = 60


def settings() -> Settings:
    """What the environment says."""
    return Settings(
        keys=json.loads(os.environ["XSESSION_KEYS"]) or None,
        public_keys=json.loads(os.environ.get("XSESSION_PUBLIC_KEYS", "null")) or None,
        audience=os.environ["XSESSION_AUDIENCE"],
        issuer=os.environ["XSESSION_ISSUER"],
        exempt=["/healthz"],
    )


def _or(what: Callable[[], Any], otherwise: Any) -> Any:
    try:
        return what()
    except SessionWithheld:
        return otherwise


def seen(session: Session) -> dict[str, Any]:
    """The session as it is seen now."""
    return {"session": _or(lambda: dict(session), None)}


def told(framework: str, session: Session) -> dict[str, Any]:
    """Everything that the request came with."""
    return {
        "framework": framework,
        "user_id": _or(lambda: session.user_id, "unknown"),
        "sid": _or(lambda: session.sid, None),
        "rev": _or(lambda: session.rev, None),
        "withheld": session.withheld,
        **seen(session),
    }


def _append(session: Session, key: str, value: Any) -> None:
    session.setdefault(key, []).append(value)


def _nothing(session: Session) -> None:
    for key, value in dict(session).items():
        if not key.startswith("_"):
            session[key] = json.loads(json.dumps(value))
            break


def _delete(session: Session, key: str) -> None:
    with contextlib.suppress(KeyError):
        del session[key]


def change(session: Session, act: str, key: str, body: bytes) -> dict[str, Any] | None:
    """Do what these paths say that are the same everywhere; None for other paths."""
    acts: dict[str, Callable[[], object]] = {
        "set": lambda: session.__setitem__(key, json.loads(body)),
        "append": lambda: _append(session, key, json.loads(body)),
        "del": lambda: _delete(session, key),
        "flush": session.flush,
        "cycle": session.cycle_key,
        "expiry": lambda: session.set_expiry(json.loads(body)),
        "touch": session.touch,
        "nothing": lambda: _nothing(session),
        "large": lambda: session.__setitem__(key, "x" * 20_000),
    }
    if act not in acts:
        return None
    acts[act]()
    return seen(session)


def count(session: Session, key: str) -> dict[str, Any]:
    """The guarded change."""
    session.only_if_unchanged()
    session[key] = (session.get(key) or 0) + 1
    return seen(session)


def change_first(headers: Any) -> None:
    """Let another request change the session, if the headers say so."""
    url = headers.get("X-Test-Change-First")
    if not url:
        return
    request = urllib.request.Request(url, data=b'"other"', method="POST")
    for name, field in (("Cookie", "X-Test-Cookie"), ("Origin", "X-Test-Origin")):
        value = headers.get(field)
        if value:
            request.add_header(name, value)
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
        answer.read()


def late(session: Session, key: str) -> str:
    """A change in the middle of a streaming answer."""
    try:
        session[key] = "late"
    except SessionClosed:
        return "refused"
    return "stored"


def main() -> None:
    """Serve until standard input ends."""
    framework = sys.argv[1] if len(sys.argv) == 2 else ""
    if framework not in FRAMEWORKS:
        sys.exit(f"usage: service.py {'|'.join(FRAMEWORKS)}")
    logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    listener = socket.create_server(("127.0.0.1", 0))

    def end_with_input() -> None:
        # Not through sys.stdin: its lock must be free when the interpreter ends.
        while os.read(0, 1024):
            pass
        os._exit(0)

    threading.Thread(target=end_with_input, daemon=True).start()
    module = importlib.import_module(f"services.{framework}")
    port = listener.getsockname()[1]

    def ready() -> None:
        print(f"listening on 127.0.0.1:{port}", flush=True)

    module.serve(listener, ready)


def serve_asgi(app: Any, listener: socket.socket, ready: Callable[[], None]) -> None:
    """Serve an ASGI application with uvicorn."""
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready()

    config = uvicorn.Config(app, log_config=None, lifespan="on")
    asyncio.run(Server(config).serve([listener]))


if __name__ == "__main__":
    # Under its own name, so that services.* do not load it a second time.
    sys.modules["service"] = sys.modules["__main__"]
    main()
