"""SESSION_ENGINE = "session_gateway_django.cached_db": as ``session_gateway_django.db``, with a cache for reading.

Django's own ``cached_db`` believes its cache for as long as a session lives, so it never sees what others store.
Here an entry is believed for SESSION_GATEWAY_CACHE_SECONDS. Saves go by the row, never by the cache.

Two entries belong to a session:

* The copy, which is the row's text. It ends SESSION_GATEWAY_CACHE_SECONDS after the moment when its row was asked for,
  at the latest. Readers add it where there is none; a save replaces it when it is committed. An empty copy stands for a
  save that is not committed yet: readers then go to the row, and cannot put an older one here.
* The mark of an ended session. Where it is, no copy is believed, whoever has put it there and when. It outlives all
  copies of rows that were read before the end. A session that lives after all, because its end was rolled back, is
  read from its row.
"""

import logging
import math
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
# Caches count whole seconds, and the second that has begun is not believed: nothing is left of one.
SHORTEST_SECONDS = 2
# Beyond this it would be another meaning of "logged out".
LONGEST_SECONDS = 60
# As long as the longest copy, and as much again: for a reader that was held up before it has put its copy there.
ENDED_SECONDS = 2 * LONGEST_SECONDS


def cache_seconds():
    """SESSION_GATEWAY_CACHE_SECONDS: how long an entry of the cache is believed."""
    seconds = getattr(settings, "SESSION_GATEWAY_CACHE_SECONDS", DEFAULT_SECONDS)
    if type(seconds) is not int or not SHORTEST_SECONDS <= seconds <= LONGEST_SECONDS:
        raise ImproperlyConfigured(
            f"SESSION_GATEWAY_CACHE_SECONDS is a whole number from {SHORTEST_SECONDS} to {LONGEST_SECONDS}. "
            "To read the row with each request set SESSION_ENGINE to 'session_gateway_django.db'."
        )
    return seconds


class SessionStore(db.SessionStore):
    """The merging store, which reads a row that it has just read from a cache."""

    # Not that of Django's own engine: its entries are believed for weeks.
    cache_key_prefix = "session_gateway_django.cached_db"
    # No session key makes one of the other: they differ before the key.
    ended_key_prefix = "session_gateway_django.ended"

    def __init__(self, session_key=None):
        self._cache = caches[settings.SESSION_CACHE_ALIAS]
        self._seconds = cache_seconds()
        super().__init__(session_key)

    def load(self):
        key = self.session_key
        if key is None:
            return {}
        text = self._believed(key)
        if text is not None:
            return self._take(text)
        asked = time.monotonic()
        row = self._get_session_from_db()
        if row is None:
            return {}
        text, using = row.session_data, row._state.db
        age = self.get_expiry_age(expiry=row.expire_date)
        if sees_the_present(transaction.get_connection(using)):
            # Within a transaction this may be what was not committed yet.
            transaction.on_commit(lambda: self._remember(self._cache.add, key, text, age, asked), using=using)
        return self._take(text)

    def delete(self, session_key=None):
        key = self.session_key if session_key is None else session_key
        if key is None:
            return
        super().delete(key)
        self._end(key)
        using = self._using(key)
        if transaction.get_connection(using).in_atomic_block:
            # Others see the row until then.
            transaction.on_commit(lambda: self._end(key), using=using)

    def _lock(self, using, key):
        text = super()._lock(using, key)
        if text is None:
            self._end(key)
        return text

    def _write(self, using, **how):
        asked = time.monotonic()
        text = super()._write(using, **how)
        key, age = self.session_key, self.get_expiry_age()
        self._block(key)
        # A site that goes back to Django's own engine must not find what is old there.
        self._ask("written", self._cache.delete, cached_db.KEY_PREFIX + key)

        def committed():
            # Where the transaction has taken too long, readers may have added the copy from before it.
            if not self._remember(self._cache.set, key, text, age, asked):
                self._block(key)

        transaction.on_commit(committed, using=using)
        return text

    def _believed(self, key):
        """The copy of the row; None if there is none, or none to believe."""
        copy, ended = self.cache_key_prefix + key, self.ended_key_prefix + key
        found = self._ask("read", self._cache.get_many, [copy, ended]) or {}
        text = found.get(copy)
        return text if isinstance(text, str) and text and ended not in found else None

    def _remember(self, put, key, text, age, asked):
        """Puts a row into the cache that was so at the moment ``asked``, or later; says whether there was time left."""
        seconds = min(self._seconds, age) - math.ceil(time.monotonic() - asked)
        if seconds <= 0:
            return False
        self._ask("written", put, self.cache_key_prefix + key, text, seconds)
        return True

    def _block(self, key):
        """Puts an empty copy there: the row has changed, or will have in a moment."""
        self._ask("written", self._cache.set, self.cache_key_prefix + key, "", self._seconds)

    def _end(self, key):
        """Lets nobody believe a copy of this session any more."""
        self._ask("written", self._cache.set, self.ended_key_prefix + key, "", ENDED_SECONDS)
        # Also the entry of Django's own engine: a site that goes back to it must not find an old login there.
        self._ask("written", self._cache.delete_many, [self.cache_key_prefix + key, cached_db.KEY_PREFIX + key])

    def _ask(self, what, method, *arguments):
        # Without its cache it is the engine without a cache. What is in there ends soon, by itself.
        try:
            return method(*arguments)
        except Exception as error:  # noqa: BLE001 (each cache has errors of its own)
            # The error's own text may name the key of the session.
            logger.warning("the cache of the sessions could not be %s: %s", what, type(error).__name__)
            return None


def sees_the_present(connection):
    """Whether a read sees all that was committed before it, and not what was so when a transaction began."""
    if not connection.in_atomic_block:
        # Without autocommit there is always a transaction, and nobody says when it is committed.
        return connection.get_autocommit()
    if connection.vendor == "mysql":
        # Django sets it on each connection, unless it is None.
        return connection.isolation_level == "read committed"
    if connection.vendor != "postgresql":
        return False
    # The server's settings, those of the role and the site's own code have a say in it: only the server knows.
    with connection.cursor() as cursor:
        cursor.execute("SHOW transaction_isolation")
        return cursor.fetchone()[0] in ("read committed", "read uncommitted")
