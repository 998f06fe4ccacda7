"""SESSION_ENGINE = "session_gateway_django.cached_db": as ``session_gateway_django.db``, with a cache for reading.

Django's own ``cached_db`` believes its cache for as long as a session lives, so it never sees what others store.
Here an entry is believed for SESSION_GATEWAY_CACHE_SECONDS. Saves go by the row, never by the cache.
"""

import logging
import time

from django.conf import settings
from django.contrib.sessions.backends import cached_db
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction

from session_gateway_django import db

logger = logging.getLogger("session_gateway_django")

# The calls that one page makes of a site, and not much more.
DEFAULT_SECONDS = 5
# Beyond this it would be another meaning of "logged out".
LONGEST_SECONDS = 60


def cache_seconds():
    """SESSION_GATEWAY_CACHE_SECONDS: how long an entry of the cache is believed."""
    seconds = getattr(settings, "SESSION_GATEWAY_CACHE_SECONDS", DEFAULT_SECONDS)
    if type(seconds) is not int or not 1 <= seconds <= LONGEST_SECONDS:
        raise ImproperlyConfigured(
            f"SESSION_GATEWAY_CACHE_SECONDS is a whole number from 1 to {LONGEST_SECONDS}. "
            "To read the row with each request set SESSION_ENGINE to 'session_gateway_django.db'."
        )
    return seconds


class SessionStore(db.SessionStore):
    """The merging store, which reads a row that it has just read from a cache."""

    # Not that of Django's own engine: its entries are believed for weeks.
    cache_key_prefix = "session_gateway_django.cached_db"

    def __init__(self, session_key=None):
        self._cache = caches[settings.SESSION_CACHE_ALIAS]
        self._seconds = cache_seconds()
        super().__init__(session_key)

    def load(self):
        key = self.session_key
        if key is None:
            return {}
        text = self._ask("read", self._cache.get, self.cache_key_prefix + key)
        if isinstance(text, str):
            return self._take(text)
        asked = time.monotonic()
        row = self._get_session_from_db()
        if row is None:
            return {}
        text, using = row.session_data, row._state.db
        age = self.get_expiry_age(expiry=row.expire_date)
        connection = transaction.get_connection(using)
        # Within a transaction this may be what was not committed yet.
        if connection.in_atomic_block or connection.get_autocommit():
            transaction.on_commit(lambda: self._remember(key, text, age, asked), using=using)
        return self._take(text)

    def delete(self, session_key=None):
        key = self.session_key if session_key is None else session_key
        if key is None:
            return
        super().delete(key)
        self._forget(key)
        using = self._using(key)
        if transaction.get_connection(using).in_atomic_block:
            # Others still see the row, and may put it into the cache again.
            transaction.on_commit(lambda: self._forget(key), using=using)

    def _lock(self, using, key):
        text = super()._lock(using, key)
        if text is None:
            self._forget(key)
        return text

    def _write(self, using, **how):
        asked = time.monotonic()
        text = super()._write(using, **how)
        key, age = self.session_key, self.get_expiry_age()
        self._forget(key)
        transaction.on_commit(lambda: self._remember(key, text, age, asked), using=using)
        return text

    def _remember(self, key, text, age, asked):
        """Puts a row into the cache that was so at the moment ``asked``, or later."""
        seconds = min(self._seconds - int(time.monotonic() - asked), age)
        if seconds > 0:
            self._ask("written", self._cache.set, self.cache_key_prefix + key, text, seconds)

    def _forget(self, key):
        # Also the entry of Django's own engine: a site that goes back to it must not find an old login there.
        keys = [self.cache_key_prefix + key, cached_db.KEY_PREFIX + key]
        self._ask("written", self._cache.delete_many, keys)

    def _ask(self, what, method, *arguments):
        # Without its cache it is the engine without a cache. What is in there ends soon, by itself.
        try:
            return method(*arguments)
        except Exception as error:  # noqa: BLE001 (each cache has errors of its own)
            # The error's own text may name the key of the session.
            logger.warning("the cache of the sessions could not be %s: %s", what, type(error).__name__)
            return None
