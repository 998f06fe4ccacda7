"""A Django site's rows as Django would have written them: users, and many sessions of theirs.

Sources: django/core/signing.py (dumps, TimestampSigner), django/contrib/sessions/backends/base.py (encode, and
_legacy_encode of Django 3.1 and 3.2), django/contrib/auth/base_user.py (get_session_auth_hash).
"""

import base64
import hashlib
import hmac
import json
import random
import string
import time
import zlib
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

USERS = 10_000

SESSION_TABLE = """
CREATE TABLE {name} (
    session_key varchar(40) NOT NULL PRIMARY KEY,
    session_data text NOT NULL,
    expire_date {datetime} NOT NULL
);
"""
# Named as Django's migrations name it; behind the rows, because that is faster.
INDEX = "CREATE INDEX django_session_expire_date_a5c62663 ON {name} (expire_date);"
# With PostgreSQL Django makes another one, for LIKE.
LIKE_INDEX = "CREATE INDEX django_session_session_key_c0390e0f_like ON {name} (session_key varchar_pattern_ops);"

USER_TABLES = """
CREATE TABLE auth_user (
    id integer NOT NULL PRIMARY KEY,
    password varchar(128) NOT NULL,
    last_login {datetime} NULL,
    is_superuser bool NOT NULL,
    username varchar(150) NOT NULL UNIQUE,
    first_name varchar(150) NOT NULL,
    last_name varchar(150) NOT NULL,
    email varchar(254) NOT NULL,
    is_staff bool NOT NULL,
    is_active bool NOT NULL,
    date_joined {datetime} NOT NULL
);
CREATE TABLE auth_group (
    id integer NOT NULL PRIMARY KEY,
    name varchar(150) NOT NULL UNIQUE
);
CREATE TABLE auth_user_groups (
    id integer NOT NULL PRIMARY KEY,
    user_id integer NOT NULL REFERENCES auth_user (id),
    group_id integer NOT NULL REFERENCES auth_group (id),
    UNIQUE (user_id, group_id)
);
CREATE INDEX auth_user_groups_user_id_6a12ed8b ON auth_user_groups (user_id);
CREATE INDEX auth_user_groups_group_id_97559544 ON auth_user_groups (group_id);
"""

_KEY = string.ascii_lowercase + string.digits
_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase


@dataclass(frozen=True)
class Session:
    """One session: its key, and what Django stores for it."""

    key: str
    contents: dict
    data: str
    expire_date: datetime


def users():
    """Rows (id, password, username, email): their passwords differ, and so do their sessions' hashes."""
    for number in range(1, USERS + 1):
        yield number, _password(number), f"user-{number}", f"user-{number}@shop.example"


def sessions(count, secret_key, notes=None):
    """`count` sessions, of one user after the other: logged in, with a small cart.

    With `notes` they are nobody's and hold a text of so many letters.
    """
    chance = random.Random(f"{count} {notes}")
    signer = _mac(b"django.contrib.sessions.SessionStoresigner", secret_key)
    logins = [_login(number, secret_key) for number in range(1, min(USERS, count) + 1)]
    timestamp = _base62(int(time.time()))
    expire_date = datetime.now(timezone.utc) + timedelta(days=14)
    for number in range(count):
        if notes is None:
            cart = [{"sku": f"{chance.randrange(10**8):08}", "n": chance.randrange(1, 5)} for _ in range(4)]
            contents = {**logins[number % len(logins)], "cart": cart}
        else:
            contents = {"notes": "".join(chance.choices(_KEY, k=notes))}
        key = "".join(chance.choices(_KEY, k=32))
        yield Session(key, contents, _encode(contents, timestamp, signer), expire_date)


def legacy_data(contents, secret_key):
    """The same session as Django before 3.1 stored it."""
    payload = json.dumps(contents, separators=(",", ":")).encode("latin-1")
    key = hashlib.sha1(b"django.contrib.sessionsSessionStore" + secret_key.encode()).digest()
    mac = hmac.new(key, payload, "sha1").hexdigest()
    return base64.b64encode(mac.encode() + b":" + payload).decode()


def _login(user, secret_key):
    mac = _mac(b"django.contrib.auth.models.AbstractBaseUser.get_session_auth_hash", secret_key)
    mac.update(_password(user).encode())
    return {
        "_auth_user_id": str(user),
        "_auth_user_backend": "django.contrib.auth.backends.ModelBackend",
        "_auth_user_hash": mac.hexdigest(),
        "language": "en",
    }


def _password(user):
    digest = hashlib.sha256(str(user).encode()).digest()
    return "pbkdf2_sha256$600000$abcdefghijklmnopqrstuv$" + base64.b64encode(digest).decode()


def _encode(session, timestamp, signer):
    payload = json.dumps(session, separators=(",", ":")).encode("latin-1")
    packed = zlib.compress(payload)
    body = "." + _base64(packed) if len(packed) < len(payload) - 1 else _base64(payload)
    signed = f"{body}:{timestamp}"
    mac = signer.copy()
    mac.update(signed.encode())
    return f"{signed}:{_base64(mac.digest())}"


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
