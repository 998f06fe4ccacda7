"""What a service is configured with, and the check of a request by it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Any, Callable, Optional, TypeVar, Union

from ._errors import Refused, SettingsError
from ._session import Session
from ._token import (
    KID,
    Claims,
    Key,
    Parts,
    request_digest,
    secret_bytes,
    split,
    strict_base64url,
    verify,
)

Secret = Union[bytes, str]
_T = TypeVar("_T")
# A dict by kid, or a function of the kid, which may be async.
_ByKid = Union[Mapping[str, _T], Callable[[str], Union[Optional[_T], Awaitable[Optional[_T]]]]]
Keys = _ByKid[Secret]
PublicKeys = _ByKid[str]
Exempt = Union[Iterable[str], Callable[[str, str], bool]]

# Methods that change nothing (RFC 9110, 9.2.1).
_SAFE = ("GET", "HEAD", "OPTIONS", "TRACE")
_CHECKS = ("unsafe", "always", "never")


class Settings:
    """How the requests of the gateway are recognised. Wrong settings raise SettingsError.

    * `audience`: this service's name in the gateway's configuration.
    * `issuer`: the gateway's `issuer`.
    * `keys`: the secrets by `kid`, or a function that is called with the `kid` and gives the
      secret or None. For ASGI and aiohttp it may be async.
    * `public_keys`: the same for a gateway that signs with EdDSA: the `x` of its JWK by `kid`.
      Needs the extra `eddsa`.
    * `leeway`: how many seconds the clocks may differ.
    * `exempt`: the paths that are asked past the gateway, such as "/healthz", or a function of
      method and path that returns True. They get no session.
    * `check_request`: whether a token must be that of this very request: "unsafe" (all methods
      but GET, HEAD, OPTIONS and TRACE, and every request with an Upgrade field), "always" or
      "never".
    """

    def __init__(
        self,
        *,
        audience: str,
        issuer: str,
        keys: Keys | None = None,
        public_keys: PublicKeys | None = None,
        leeway: float = 30,
        exempt: Exempt = (),
        check_request: str = "unsafe",
    ) -> None:
        """Check the settings, and read the keys."""
        for name, text in (("audience", audience), ("issuer", issuer)):
            if not isinstance(text, str) or not text:
                raise SettingsError(f"{name} must be a text that is not empty")
        if isinstance(leeway, bool) or not isinstance(leeway, (int, float)):
            raise SettingsError("leeway must be a number of seconds")
        if not (math.isfinite(leeway) and leeway >= 0):
            raise SettingsError("leeway must be a number of seconds of 0 or more")
        if check_request not in _CHECKS:
            raise SettingsError(f"check_request must be one of {', '.join(map(repr, _CHECKS))}")
        self.audience = audience
        self.issuer = issuer
        self.leeway = leeway
        self.check_request = check_request
        self._sources = _sources(keys, public_keys)
        self._exempt = _exempt(exempt)

    def __repr__(self) -> str:
        """Show no key."""
        return f"<Settings audience={self.audience!r} issuer={self.issuer!r}>"

    def is_exempt(self, method: str, path: str) -> bool:
        """Whether requests to this path pass without a session."""
        # Nothing else than True: a coroutine, say, would let everybody in.
        return self._exempt(method, path) is True

    def must_be_sync(self) -> None:
        """Raise SettingsError if a function for keys is async: where nothing can await it."""
        for source in self._sources:
            if source.is_async:
                raise _only_async(source.name)

    def verify(self, token: str, *, now: float | None = None) -> Claims:
        """The claims of a token that is good at `now`, without a look at the request."""
        parts = split(token)
        return self._verified(parts, self._find_key(parts.kid), now)

    async def averify(self, token: str, *, now: float | None = None) -> Claims:
        """The same where functions for keys may be async."""
        parts = split(token)
        return self._verified(parts, await self._afind_key(parts.kid), now)

    def session(
        self,
        tokens: Sequence[str],
        *,
        method: str,
        hosts: Sequence[str],
        targets: Sequence[str],
        upgrade: bool,
        hint: str = "",
        now: float | None = None,
    ) -> Session:
        """The session of a request, or Refused. For frameworks that have no middleware here.

        `tokens` and `hosts` are the values of all `X-Session` and `Host` fields. `targets` are the
        spellings that the raw target may have had, none if the server does not tell it; `hint`
        then says in the log what to do. `upgrade`: whether there is an `Upgrade` field, as in a
        WebSocket handshake.
        """
        claims = self.verify(_only(tokens), now=now)
        if self._compares(method, upgrade):
            _check_request(claims, method, hosts, targets, hint)
        return Session(claims)

    async def asession(
        self,
        tokens: Sequence[str],
        *,
        method: str,
        hosts: Sequence[str],
        targets: Sequence[str],
        upgrade: bool,
        hint: str = "",
        now: float | None = None,
    ) -> Session:
        """The same where functions for keys may be async."""
        claims = await self.averify(_only(tokens), now=now)
        if self._compares(method, upgrade):
            _check_request(claims, method, hosts, targets, hint)
        return Session(claims)

    def _find_key(self, kid: str) -> Key | None:
        for source in self._sources:
            key = source.find(kid)
            if key is not None:
                return key
        return None

    async def _afind_key(self, kid: str) -> Key | None:
        for source in self._sources:
            key = await source.afind(kid)
            if key is not None:
                return key
        return None

    def _verified(self, parts: Parts, key: Key | None, now: float | None) -> Claims:
        return verify(
            parts,
            key,
            audience=self.audience,
            issuer=self.issuer,
            leeway=self.leeway,
            now=now,
        )

    def _compares(self, method: str, upgrade: bool) -> bool:
        return self.check_request == "always" or (
            self.check_request == "unsafe" and (method not in _SAFE or upgrade)
        )


def _only(tokens: Sequence[str]) -> str:
    if not tokens:
        raise Refused("x-session-missing", "X-Session is missing: not through the gateway?")
    # Servers join two fields with a comma, which no token has.
    if len(tokens) > 1 or "," in tokens[0]:
        raise Refused("x-session-twice", "there is more than one X-Session")
    return tokens[0]


def _check_request(
    claims: Claims, method: str, hosts: Sequence[str], targets: Sequence[str], hint: str
) -> None:
    code = "x-session-other-request"
    if len(hosts) != 1:
        raise Refused(code, f"there are {len(hosts)} Host fields, so req cannot be compared")
    if not targets:
        raise Refused(
            code, f"the server does not tell the raw target, so req cannot be compared. {hint}"
        )
    if not any(request_digest(method, hosts[0], target) == claims.req for target in targets):
        raise Refused(code, f"X-Session belongs to another request (req). {hint}".rstrip())


def _sources(keys: Keys | None, public_keys: PublicKeys | None) -> list[_Source]:
    if keys is None and public_keys is None:
        raise SettingsError("keys are missing: a secret for each kid")
    sources = []
    if keys is not None:
        sources.append(_Source("keys", "secrets", keys, _secret))
    if public_keys is not None:
        sources.append(_Source("public_keys", "x", public_keys, _ed25519()))
    if isinstance(keys, Mapping) and isinstance(public_keys, Mapping):
        for kid in keys:
            if kid in public_keys:
                raise SettingsError(f"{kid!r} is both in keys and in public_keys")
    return sources


class _Source:
    """Where keys come from: a dict that is read at the start, or a function."""

    def __init__(self, name: str, what: str, given: Any, key_of: Callable[[str, Any], Key]) -> None:
        self.name = name
        self.is_async = callable(given) and is_async(given)
        self._ask: Callable[[str], Any]
        self._key_of = key_of
        if callable(given):
            self._ask = given
            return
        if not isinstance(given, Mapping):
            raise SettingsError(f"{name} must be a dict of {what} by kid, or a function of the kid")
        _check_kids(name, given)
        ready = {kid: key_of(kid, value) for kid, value in given.items()}
        self._ask, self._key_of = ready.get, lambda _kid, key: key

    def find(self, kid: str) -> Key | None:
        found = self._ask(kid)
        if inspect.isawaitable(found):
            if inspect.iscoroutine(found):
                found.close()
            raise _only_async(self.name)
        return None if found is None else self._key_of(kid, found)

    async def afind(self, kid: str) -> Key | None:
        found = self._ask(kid)
        if inspect.isawaitable(found):
            found = await found
        return None if found is None else self._key_of(kid, found)


def is_async(function: Any) -> bool:
    """Whether to call it gives a coroutine."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - an object with an async __call__
    )


def _only_async(name: str) -> SettingsError:
    return SettingsError(f"{name} is an async function: only ASGI and aiohttp can ask it")


def _check_kids(name: str, kids: Iterable[str]) -> None:
    found = list(kids)
    if not found:
        raise SettingsError(f"{name} is empty: no request would be believed")
    for kid in found:
        if not isinstance(kid, str) or not KID.fullmatch(kid):
            raise SettingsError(
                f"the kid {kid!r} in {name} is not 1 to 64 letters, digits, -, _ and ."
            )


def _secret(kid: str, secret: Secret) -> bytes:
    try:
        return secret_bytes(kid, secret)
    except (TypeError, ValueError) as error:
        raise SettingsError(str(error)) from None


def _ed25519() -> Callable[[str, str], Key]:
    try:
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - an extra
        from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
            Ed25519PublicKey,
        )
    except ImportError:
        raise SettingsError(
            "public_keys need cryptography: install this package with its extra eddsa"
        ) from None

    def verifier(kid: str, x: str) -> Key:
        data = strict_base64url(x) if isinstance(x, str) else None
        if data is None or len(data) != 32:  # noqa: PLR2004 - RFC 8032
            raise SettingsError(f"the public key {kid!r} is not the x of an Ed25519 JWK")
        key = Ed25519PublicKey.from_public_bytes(data)

        def fits(signature: bytes, signed: bytes) -> bool:
            try:
                key.verify(signature, signed)
            except InvalidSignature:
                return False
            return True

        return fits

    return verifier


def _exempt(exempt: Exempt) -> Callable[[str, str], bool]:
    if callable(exempt):
        if is_async(exempt):
            raise SettingsError("exempt must not be an async function")
        return exempt
    if isinstance(exempt, (str, bytes)):
        raise SettingsError("exempt must be a list of paths, or a function of method and path")
    paths = frozenset(exempt)
    for path in paths:
        if not isinstance(path, str) or not path.startswith("/"):
            raise SettingsError(f"the exempt path {path!r} does not start with /")
    return lambda _method, path: path in paths
