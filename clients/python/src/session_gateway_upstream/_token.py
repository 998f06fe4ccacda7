"""`X-Session`: from the field's value to claims that can be believed."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Callable, Union

from ._errors import Refused
from ._json import strict_object

TYP = "x-session.v1+jwt"
MAX_TOKEN = 64 * 1024
KID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_PART = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)

# A shared secret, or a function that checks a signature with a public key.
Key = Union[bytes, Callable[[bytes, bytes], bool]]

# With these the gateway tells the contents or why not, but always who is calling.
CONTENTS_WITHHELD = ("too_large", "not_json")


@dataclass(frozen=True)
class Claims:
    """The claims of a token that is good."""

    payload: bytes
    audience: str
    req: str
    sid: str | None
    rev: str | None
    session_exp: datetime | None
    sub: str | None
    session: dict[str, Any] | None
    user: dict[str, Any] | None
    withheld: str | None

    def __repr__(self) -> str:
        """Show nothing: it holds session data."""
        return "<Claims>"


def unpadded(data: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def strict_base64url(text: str) -> bytes | None:
    """The bytes, if `text` is the one spelling of them."""
    if not _PART.fullmatch(text) or len(text) % 4 == 1:
        return None
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    # Bits that no byte holds would make two texts of one value.
    return data if unpadded(data) == text else None


def request_digest(method: str, host: str, target: str) -> str | None:
    """The `req` of a request as it came; None if it cannot be that of any token."""
    try:
        line = f"{method} {host} {target}".encode("latin-1")
    except UnicodeEncodeError:
        return None
    return unpadded(hashlib.sha256(line).digest())


@dataclass(frozen=True)
class Parts:
    """A token that nobody has checked yet. Only its kid may be used, to find the key."""

    kid: str
    alg: object
    signed: bytes
    signature: str
    payload: bytes

    def __repr__(self) -> str:
        """Show nothing: it holds a token."""
        return "<Parts>"


def split(token: str) -> Parts:
    """The parts of a token, or Refused. Its kid is one that a key may have."""
    if len(token) > MAX_TOKEN:
        raise _malformed("it is longer than 64 KiB")
    parts = token.split(".")
    if len(parts) != 3:  # noqa: PLR2004 - header, payload, signature
        raise _malformed("it is not three parts")
    head, body, signature = parts
    head_bytes, payload = strict_base64url(head), strict_base64url(body)
    if head_bytes is None or payload is None:
        raise _malformed("a part is not base64url")
    alg, kid = _algorithm_and_kid(head_bytes)
    return Parts(kid, alg, f"{head}.{body}".encode("ascii"), signature, payload)


def verify(
    parts: Parts,
    key: Key | None,
    *,
    audience: str,
    issuer: str,
    leeway: float,
    now: float | None = None,
) -> Claims:
    """Check everything that a token alone tells, with the key of its kid, or raise Refused."""
    _check_signature(parts, key)
    # Nothing of the payload is looked at before the signature fits.
    try:
        claims = strict_object(parts.payload)
    except ValueError:
        raise _malformed("its claims are not one JSON object") from None
    _check_party(claims, audience, issuer)
    _check_time(claims, leeway, time.time() if now is None else now)
    return read(claims, parts.payload)


def _malformed(why: str) -> Refused:
    return Refused("x-session-malformed", f"X-Session is malformed: {why}")


def _unknown_kid() -> Refused:
    return Refused("x-session-unknown-kid", "X-Session is signed with an unknown key (kid)")


def _algorithm_and_kid(head_bytes: bytes) -> tuple[object, str]:
    try:
        head = strict_object(head_bytes)
    except ValueError:
        raise _malformed("its header is not one JSON object") from None
    alg, kid, typ = (head.get(name) for name in ("alg", "kid", "typ"))
    if typ != TYP:
        raise Refused("x-session-algorithm", "X-Session is of another typ")
    if set(head) != {"alg", "kid", "typ"}:
        raise _malformed("its header has other members than alg, kid and typ")
    if not isinstance(kid, str) or not KID.fullmatch(kid):
        raise _unknown_kid()
    return alg, kid


def _check_signature(parts: Parts, key: Key | None) -> None:
    if key is None:
        raise _unknown_kid()
    signed, signature = parts.signed, parts.signature
    # The key says the algorithm, never the token (RFC 8725, 3.1).
    if parts.alg != ("HS256" if isinstance(key, bytes) else "EdDSA"):
        raise Refused("x-session-algorithm", "X-Session is not of its key's algorithm")
    if isinstance(key, bytes):
        # Compared as it is spelt: no second spelling is taken.
        right = unpadded(hmac.new(key, signed, hashlib.sha256).digest())
        fits = signature.isascii() and hmac.compare_digest(right, signature)
    else:
        signature_bytes = strict_base64url(signature)
        fits = signature_bytes is not None and key(signature_bytes, signed)
    if not fits:
        raise Refused("x-session-signature", "the signature of X-Session does not fit")


def _text(claims: dict[str, Any], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str):
        raise _malformed(f"its {name} is missing or no text")
    return value


def _integer(claims: dict[str, Any], name: str) -> int:
    value = claims.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _malformed(f"its {name} is missing or no integer")
    return value


def _object(claims: dict[str, Any], name: str) -> dict[str, Any]:
    value = claims[name]
    if not isinstance(value, dict):
        raise _malformed(f"its {name} is no object")
    return value


def _check_party(claims: dict[str, Any], audience: str, issuer: str) -> None:
    if _text(claims, "aud") != audience:
        raise Refused("x-session-audience", f"X-Session is not for the audience {audience!r}")
    if _text(claims, "iss") != issuer:
        raise Refused("x-session-issuer", f"X-Session is not from the issuer {issuer!r}")


def _check_time(claims: dict[str, Any], leeway: float, now: float) -> None:
    issued, expires = _integer(claims, "iat"), _integer(claims, "exp")
    if now > expires + leeway:
        raise Refused("x-session-expired", "X-Session has expired; do the clocks agree?")
    if now < issued - leeway:
        raise Refused("x-session-not-yet-valid", "X-Session is not valid yet; do the clocks agree?")


def read(claims: dict[str, Any], payload: bytes) -> Claims:
    """The claims in their types, or Refused."""
    _text(claims, "jti")
    optional = {
        name: _text(claims, name) if name in claims else None
        for name in ("sid", "rev", "sub", "withheld")
    }
    if ("session" in claims) == ("withheld" in claims):
        raise _malformed("it has not just one of session and withheld")
    ends = None
    if "session_exp" in claims:
        try:
            ends = datetime.fromtimestamp(_integer(claims, "session_exp"), timezone.utc)
        except (OverflowError, OSError, ValueError):
            raise _malformed("its session_exp is no date") from None
    return Claims(
        payload=payload,
        audience=_text(claims, "aud"),
        req=_text(claims, "req"),
        session_exp=ends,
        session=_object(claims, "session") if "session" in claims else None,
        user=_object(claims, "user") if "user" in claims else None,
        **optional,
    )


def secret_bytes(kid: str, secret: bytes | str) -> bytes:
    """The secret that the gateway has under the same text; ValueError says what is wrong."""
    if not isinstance(secret, (bytes, str)):
        raise TypeError(f"the secret of the key {kid!r} is neither bytes nor text")
    data = secret.encode("utf-8") if isinstance(secret, str) else secret
    if data.endswith(b"\n"):
        data = data[:-2] if data.endswith(b"\r\n") else data[:-1]
    if data.startswith(b"base64:"):
        encoded = data[len(b"base64:") :].rstrip(b"=").replace(b"+", b"-").replace(b"/", b"_")
        try:
            decoded = strict_base64url(encoded.decode("ascii"))
        except (UnicodeDecodeError, binascii.Error):
            decoded = None
        if decoded is None:
            raise ValueError(f"what follows base64: in the secret of {kid!r} is not base64")
        data = decoded
    if len(data) < 32:  # noqa: PLR2004 - a key of HS256 is as long as its hash (RFC 7518, 3.2)
        raise ValueError(
            f"the secret of the key {kid!r} has {len(data)} bytes; at least 32 are needed"
        )
    return data
