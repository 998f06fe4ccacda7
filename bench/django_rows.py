"""A Django site's rows as Django 4.2 would have written them: one user, and many sessions of theirs.

Sources: django/core/signing.py (dumps, TimestampSigner), django/contrib/sessions/backends/base.py (encode),
django/contrib/auth/base_user.py (get_session_auth_hash).
"""

import base64
import hashlib
import hmac
import json
import random
import string
import time
import zlib
from datetime import datetime, timedelta, timezone

USER = 42
PASSWORD = "pbkdf2_sha256$600000$abcdefghijklmnopqrstuv$" + base64.b64encode(bytes(range(32))).decode()

TABLES = """
CREATE TABLE django_session (
    session_key varchar(40) NOT NULL PRIMARY KEY,
    session_data text NOT NULL,
    expire_date {datetime} NOT NULL
);
CREATE TABLE auth_user (
    id integer NOT NULL PRIMARY KEY,
    password varchar(128) NOT NULL,
    is_active bool NOT NULL
);
"""
INDEX = "CREATE INDEX django_session_expire_date_a5c62663 ON django_session (expire_date);"

_KEY = string.ascii_lowercase + string.digits
_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase


def sessions(count, secret_key):
    """`count` rows (session_key, session_data, expire_date in UTC): logged in, with a small cart."""
    chance = random.Random(count)
    signer = _mac(b"django.contrib.sessions.SessionStoresigner", secret_key)
    login = {
        "_auth_user_id": str(USER),
        "_auth_user_backend": "django.contrib.auth.backends.ModelBackend",
        "_auth_user_hash": _auth_hash(secret_key),
        "language": "en",
    }
    timestamp = _base62(int(time.time()))
    expire_date = datetime.now(timezone.utc) + timedelta(days=14)
    for _ in range(count):
        cart = [{"sku": f"{chance.randrange(10**8):08}", "n": chance.randrange(1, 5)} for _ in range(4)]
        key = "".join(chance.choices(_KEY, k=32))
        yield key, _encode({**login, "cart": cart}, timestamp, signer), expire_date


def _encode(session, timestamp, signer):
    payload = json.dumps(session, separators=(",", ":")).encode("latin-1")
    packed = zlib.compress(payload)
    body = "." + _base64(packed) if len(packed) < len(payload) - 1 else _base64(payload)
    signed = f"{body}:{timestamp}"
    mac = signer.copy()
    mac.update(signed.encode())
    return f"{signed}:{_base64(mac.digest())}"


def _auth_hash(secret_key):
    mac = _mac(b"django.contrib.auth.models.AbstractBaseUser.get_session_auth_hash", secret_key)
    mac.update(PASSWORD.encode())
    return mac.hexdigest()


def _mac(salt, secret_key):
    return hmac.new(hashlib.sha256(salt + secret_key.encode()).digest(), digestmod=hashlib.sha256)


def _base62(number):
    digits = ""
    while number:
        number, digit = divmod(number, 62)
        digits = _BASE62[digit] + digits
    return digits or "0"


def _base64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
