"""Checks tokens with PyJWT as docs say: reads {"kid","secret","audience","issuer","tokens"} as JSON, prints the claims as a JSON list."""

import json
import sys

import jwt

asked = json.load(sys.stdin)


def claims(token):
    head = jwt.get_unverified_header(token)
    assert head == {"alg": "HS256", "kid": asked["kid"], "typ": "x-session.v1+jwt"}, head
    return jwt.decode(
        token,
        asked["secret"],
        algorithms=["HS256"],
        audience=asked["audience"],
        issuer=asked["issuer"],
        leeway=30,
        options={"require": ["exp", "iat", "iss", "aud"]},
    )


json.dump([claims(token) for token in asked["tokens"]], sys.stdout)
