"""Checks that a contender does what its row says, before it is measured and after."""

import base64
import hmac
import http.client
import json

from servers import Failed


def check(contender, token_key):
    """Fails unless it answers, hands on the right session, and stores what is changed."""
    _get(contender, contender.path)
    seen = _seen(contender, token_key)
    try:
        right = contender.expected(seen)
    except (KeyError, TypeError):
        right = False
    if not right:
        raise Failed(f"{contender.name}: the service behind it got {seen}")
    if contender.writes:
        _get(contender, contender.path)
        before = _stored(_seen(contender, token_key))
        _get(contender, contender.path)
        if _stored(_seen(contender, token_key)) == before:
            raise Failed(f"{contender.name}: the change was not stored")


def _stored(seen):
    contents = seen["claims"]["session"] if "claims" in seen else seen["session"]
    return contents["seen"]


def _seen(contender, token_key):
    seen = json.loads(_get(contender, contender.echo))
    if seen["session"] and isinstance(seen["session"], str):
        seen["claims"] = _claims(seen["session"], token_key)
    return seen


def _get(contender, path):
    connection = http.client.HTTPConnection("127.0.0.1", contender.port, timeout=10)
    connection.request("GET", path, headers=contender.header)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    if response.status != 200:
        raise Failed(f"{contender.name}: {path} answers {response.status}: {body.decode(errors='replace')}")
    return body.decode()


def _claims(token, key):
    signed, _, mac = token.rpartition(".")
    if not hmac.compare_digest(hmac.digest(key.encode(), signed.encode(), "sha256"), _base64(mac)):
        raise Failed("an X-Session is not signed with the key of the upstream")
    return json.loads(_base64(signed.partition(".")[2]))


def _base64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
