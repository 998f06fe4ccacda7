"""Checks tokens with PyJWT as docs say: reads {"kid","secret" or "jwks","audience","issuer","tokens"} as JSON, prints the
claims as a JSON list. "jwks" is the URL of the gateway's public keys: then the tokens are EdDSA, else HS256."""

import json
import sys

import jwt

asked = json.load(sys.stdin)
public_keys = jwt.PyJWKClient(asked["jwks"]) if "jwks" in asked else None


def claims(token):
    algorithm = "EdDSA" if public_keys else "HS256"
    head = jwt.get_unverified_header(token)
    assert head == {"alg": algorithm, "kid": asked["kid"], "typ": "x-session.v1+jwt"}, head
    return jwt.decode(
        token,
        public_keys.get_signing_key_from_jwt(token) if public_keys else asked["secret"],
        algorithms=[algorithm],
        audience=asked["audience"],
        issuer=asked["issuer"],
        leeway=30,
        options={"require": ["exp", "iat", "iss", "aud"]},
    )


json.dump([claims(token) for token in asked["tokens"]], sys.stdout)
