"""What the tests share: the vectors, and tokens as the gateway makes them."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any

from session_gateway_upstream import Session, Settings
from session_gateway_upstream._token import request_digest, unpadded

VECTORS = json.loads(
    (Path(__file__).parents[3] / "tests/vectors/contract.json").read_text(encoding="utf-8")
)
KID = "orders-1"
SECRET = "0123456789abcdef0123456789abcdef-tests"
AUDIENCE = "orders"
ISSUER = "https://shop.example"
HOST = "shop.example"
HEAD = {"alg": "HS256", "kid": KID, "typ": "x-session.v1+jwt"}

# What a logged-in visitor has. With `session` or `withheld` this is a whole token.
KNOWN = {"sid": "sid-1", "session_exp": 4_000_000_000, "sub": "42"}
USER = {**KNOWN, "rev": "rev-1", "session": {"cart": ["book"], "lang": "fr"}}
TOO_LARGE = {**KNOWN, "rev": "rev-1", "withheld": "too_large"}
NOBODY: dict[str, Any] = {"session": {}}


def settings(**more: Any) -> Settings:
    """Settings that take the tokens of `token`."""
    return Settings(**{"keys": {KID: SECRET}, "audience": AUDIENCE, "issuer": ISSUER, **more})


def b64(value: Any) -> str:
    """A part of a token: bytes as they are, all else as JSON."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return unpadded(data)


def signed(head: Any, claims: Any, secret: str = SECRET) -> str:
    """A token of whatever it is given, signed with HS256."""
    text = f"{b64(head)}.{b64(claims)}"
    return text + "." + unpadded(hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest())


def claims(
    visitor: dict[str, Any] = USER, method: str = "GET", target: str = "/", host: str = HOST
) -> dict[str, Any]:
    """The claims of a token that is good now."""
    now = int(time.time())
    req = request_digest(method, host, target)
    common = {"iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + 60, "jti": "jti-1"}
    return {**common, "req": req, **visitor}


def token(
    visitor: dict[str, Any] = USER, method: str = "GET", target: str = "/", host: str = HOST
) -> str:
    """A token that is good now, for this request."""
    return signed(HEAD, claims(visitor, method, target, host))


def session(visitor: dict[str, Any] = USER) -> Session:
    """The session of a visitor."""
    return settings().session([token(visitor)], method="GET", hosts=[], targets=[], upgrade=False)


def sent(opened: Session, status: int = 200, has_own: bool = False) -> Any:
    """What the response's head would carry, as JSON; None for no field."""
    field = opened._close(status, has_own)
    return None if field is None else json.loads(field)
