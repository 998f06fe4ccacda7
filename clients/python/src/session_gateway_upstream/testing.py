"""Sessions without a gateway, for the tests of your handlers.

session = make_session({"sub": "42", "session": {"cart": ["book"]}})

assert change_of(session) == {"set": {"cart": ["book", "pen"]}}
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from ._errors import Refused
from ._json import strict_object
from ._session import Session
from ._token import read

__all__ = ["change_of", "make_session"]


def make_session(claims: Mapping[str, Any]) -> Session:
    """The session that a token with these claims would give.

    What every token has may be left out. Without `session` and `withheld` the session is empty.
    A claim of another type than in the contract raises ValueError.
    """
    now = int(time.time())
    common = {"iss": "", "aud": "", "iat": now, "exp": now + 60, "jti": "", "req": ""}
    more: dict[str, Any] = {} if "withheld" in claims else {"session": {}}
    payload = json.dumps({**common, **more, **claims}).encode("ascii")
    try:
        return Session(read(strict_object(payload), payload))
    except Refused as refused:
        raise ValueError(str(refused)) from None


def change_of(session: Session, status: int = 200) -> dict[str, Any] | None:
    """What a response with this status would carry now in `X-Session-Set`; None for no field.

    Raises BadSessionChange where the answer would be a 500 instead.
    """
    field = session._field(status, False)
    return None if field is None else strict_object(field.encode("ascii"))
