"""The session of Flask's current request.

app.wsgi_app = SessionMiddleware(app.wsgi_app, settings)

session = get_session()
"""

from __future__ import annotations

from flask import request

from . import wsgi
from ._session import Session
from .wsgi import SessionMiddleware

__all__ = ["SessionMiddleware", "get_session"]


def get_session() -> Session:
    """The session of the current request."""
    return wsgi.get_session(request.environ)
