"""The visitor's Django session in a service behind session-gateway.

The middleware is in a module for each kind of framework: `session_gateway_upstream.asgi`
(Starlette, FastAPI), `.aiohttp` and `.wsgi` (Flask). All take the same `Settings`, and give the
handler a `Session`.
"""

from ._errors import (
    BadSessionChange,
    Refused,
    SessionClosed,
    SessionError,
    SessionWithheld,
    SettingsError,
)
from ._session import Session
from ._settings import Settings

__version__ = "0.1.0"

__all__ = [
    "BadSessionChange",
    "Refused",
    "Session",
    "SessionClosed",
    "SessionError",
    "SessionWithheld",
    "Settings",
    "SettingsError",
]
