"""What a service is configured with, and the check of a request by it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Callable, Optional, Union

from ._errors import Refused, SettingsError
from ._session import Session
from ._token import (
    KID,
    Claims,
    FindKey,
    Key,
    request_digest,
    secret_bytes,
    strict_base64url,
    verify,
)

Secret = Union[bytes, str]
Keys = Union[Mapping[str, Secret], Callable[[str], Optional[Secret]]]
PublicKeys = Union[Mapping[str, str], Callable[[str], Optional[str]]]
Exempt = Union[Iterable[str], Callable[[str, str], bool]]

# What the gateway takes for methods that change nothing.
_SAFE = ("GET", "HEAD", "OPTIONS")
_CHECKS = ("unsafe", "always", "never")


class Settings:
    """How the requests of the gateway are recognised. Wrong settings raise SettingsError.

    * `audience`: this service's name in the gateway's configuration.
    * `issuer`: the gateway's `issuer`.
    * `keys`: the secrets by `kid`, or a function that is called with the `kid` and gives the
      secret or None.
    * `public_keys`: the same for a gateway that signs with EdDSA: the `x` of its JWK by `kid`.
      Needs the extra `eddsa`.
    * `leeway`: how many seconds the clocks may differ.
    * `exempt`: the paths that are asked past the gateway, such as "/healthz", or a function of
      method and path. They get no session.
    * `check_request`: whether a token must be that of this very request: "unsafe" (all methods
      but GET, HEAD and OPTIONS), "always" or "never".
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
        self._find_key = _finder(keys, public_keys)
        self._exempt = _exempt(exempt)

    def __repr__(self) -> str:
        """Show no key."""
        return f"<Settings audience={self.audience!r} issuer={self.issuer!r}>"

    def is_exempt(self, method: str, path: str) -> bool:
        """Whether requests to this path pass without a session."""
        return bool(self._exempt(method, path))

    def verify(self, token: str, *, now: float | None = None) -> Claims:
        """The claims of a token that is good at `now`, without a look at the request."""
        return verify(
            token,
            self._find_key,
            audience=self.audience,
            issuer=self.issuer,
            leeway=self.leeway,
            now=now,
        )

    def session(
        self,
        tokens: Sequence[str],
        *,
        method: str,
        hosts: Sequence[str],
        targets: Sequence[str],
        hint: str = "",
        now: float | None = None,
    ) -> Session:
        """The session of a request, or Refused. For frameworks that have no middleware here.

        `tokens` and `hosts` are the values of all `X-Session` and `Host` fields. `targets` are the
        spellings that the raw target may have had, none if the server does not tell it; `hint`
        then says in the log what to do.
        """
        if not tokens:
            raise Refused("x-session-missing", "X-Session is missing: not through the gateway?")
        # Servers join two fields with a comma, which no token has.
        if len(tokens) > 1 or "," in tokens[0]:
            raise Refused("x-session-twice", "there is more than one X-Session")
        claims = self.verify(tokens[0], now=now)
        if self.check_request == "always" or (
            self.check_request == "unsafe" and method not in _SAFE
        ):
            _check_request(claims, method, hosts, targets, hint)
        return Session(claims)


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


def _finder(keys: Keys | None, public_keys: PublicKeys | None) -> FindKey:
    if keys is None and public_keys is None:
        raise SettingsError("keys are missing: a secret for each kid")
    find_secret = _secrets(keys)
    find_public = _public_keys(public_keys)
    if isinstance(keys, Mapping) and isinstance(public_keys, Mapping):
        for kid in keys:
            if kid in public_keys:
                raise SettingsError(f"{kid!r} is both in keys and in public_keys")

    def find(kid: str) -> Key | None:
        secret = find_secret(kid)
        return find_public(kid) if secret is None else secret

    return find


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


def _secrets(keys: Keys | None) -> Callable[[str], Key | None]:
    if keys is None:
        return lambda _kid: None
    if callable(keys):
        ask = keys

        def asked(kid: str) -> Key | None:
            secret = ask(kid)
            return None if secret is None else _secret(kid, secret)

        return asked
    if not isinstance(keys, Mapping):
        raise SettingsError("keys must be a dict of secrets by kid, or a function of the kid")
    _check_kids("keys", keys)
    return {kid: _secret(kid, secret) for kid, secret in keys.items()}.get


def _public_keys(keys: PublicKeys | None) -> Callable[[str], Key | None]:
    if keys is None:
        return lambda _kid: None
    verifier = _ed25519()
    if callable(keys):
        ask = keys

        def asked(kid: str) -> Key | None:
            x = ask(kid)
            return None if x is None else verifier(kid, x)

        return asked
    if not isinstance(keys, Mapping):
        raise SettingsError("public_keys must be a dict of x by kid, or a function of the kid")
    _check_kids("public_keys", keys)
    return {kid: verifier(kid, x) for kid, x in keys.items()}.get


def _ed25519() -> Callable[[str, str], Key]:
    try:
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - an extra
        from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
            Ed25519PublicKey,
        )
    except ImportError:
        raise SettingsError(
            "public_keys need cryptography: pip install 'session-gateway-upstream[eddsa]'"
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
        return exempt
    if isinstance(exempt, (str, bytes)):
        raise SettingsError("exempt must be a list of paths, or a function of method and path")
    paths = frozenset(exempt)
    for path in paths:
        if not isinstance(path, str) or not path.startswith("/"):
            raise SettingsError(f"the exempt path {path!r} does not start with /")
    return lambda _method, path: path in paths
