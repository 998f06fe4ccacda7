"""The session as a FastAPI dependency.

@app.get("/cart")
async def cart(session: CurrentSession):
    return session.get("cart", [])
"""

# Without `from __future__ import annotations`: FastAPI reads the annotations when it runs.
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from . import asgi
from ._session import Session

__all__ = ["CurrentSession", "get_session"]


async def get_session(connection: HTTPConnection) -> Session:
    """The session of the request or WebSocket."""
    return asgi.get_session(connection.scope)


CurrentSession = Annotated[Session, Depends(get_session)]
