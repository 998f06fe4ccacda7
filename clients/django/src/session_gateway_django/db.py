"""SESSION_ENGINE = "session_gateway_django.db": Django's ``db`` engine, whose saves do not overwrite other writers.

Django saves all of a session as it was loaded, with what the request has changed. What somebody else has stored in
between is lost. Here a save locks the row, reads it, and adds only what this request has changed.
"""

from contextlib import suppress

from asgiref.sync import sync_to_async
from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.backends import db
from django.contrib.sessions.backends.base import CreateError, UpdateError
from django.contrib.sessions.exceptions import SessionInterrupted
from django.core import signing
from django.db import DatabaseError, IntegrityError, OperationalError, connections, router, transaction
from django.db.models import F
from django.utils import timezone

from session_gateway_django.merging import merge

# How often a save is tried that the database ends because of another transaction.
ATTEMPTS = 5
# Serialization failure and deadlock: PostgreSQL; MySQL and MariaDB.
SQLSTATES = {"40001", "40P01"}
ERROR_CODES = {1020, 1213}


# It must have this name: Django's salt is made from it, and all readers of the rows know that one.
class SessionStore(db.SessionStore):
    """Django's store, with saves that merge."""

    def __init__(self, session_key=None):
        super().__init__(session_key)
        self._begin(None)

    def _begin(self, text):
        # The row that this session was made from, as it is stored: nested values are changed in place, a text is not.
        # None: it was made from nothing, and all of it is this side's own.
        self._base = text
        self._life = object()

    def _take(self, text):
        # Somebody may look at the row with load() while the session goes on from what it was.
        if not hasattr(self, "_session_cache"):
            self._begin(text)
        return self.decode(text)

    def load(self):
        row = self._get_session_from_db()
        return self._take(row.session_data) if row else {}

    def clear(self):
        """Empties the session: also of what others have stored up to the save, so nothing is merged then."""
        super().clear()
        self._begin(None)

    def save(self, must_create=False):
        """Saves what this side has changed since it was loaded or saved, and leaves the rest as the row has it.

        Afterwards this session has what others have stored. Raises UpdateError if the row is gone or has expired:
        nothing is ever stored under the key of a session that has ended. An error of the database stays what it is.
        """
        if self.session_key is None:
            return self.create()
        self._get_session(no_load=must_create)
        if self.session_key is None:
            raise UpdateError
        using = self._using(self.session_key)
        if must_create:
            return self._insert(using)

        def update():
            text = self._lock(using, self.session_key)
            if text is None:
                raise UpdateError
            self._rebase(using, text)
            self._write(using, force_update=True)

        self._in_transaction(using, update)

    def cycle_key(self):
        """Gives the session another key, with all that is stored under the old one by now.

        If the old row is gone or has expired, a login is not carried on: SessionInterrupted, which Django answers with
        400. What an anonymous visitor had is: he may just have logged in twice.
        """
        self._get_session()
        old = self.session_key
        if old is None:
            return self.create()
        using = self._using(old)

        def cycle():
            text = self._lock(using, old)
            if text is not None:
                self._rebase(using, text)
            elif SESSION_KEY in self._session_cache:
                raise SessionInterrupted("The session has ended: somebody may have logged out in another request.")
            self.create()
            self.delete(old)

        try:
            self._in_transaction(using, cycle)
        except BaseException:
            self._session_key = old
            raise

    def delete(self, session_key=None):
        key = self.session_key if session_key is None else session_key
        if key is None:
            return
        # Where it is written: a replica may not have heard of the row, and then the session would live on.
        using = self._using(key)

        def delete():
            with suppress(self.model.DoesNotExist):
                self._locked(using, key).get().delete()

        # Tried again as a save is: a logout must not lose where a save wins.
        self._in_transaction(using, delete)

    # Django 5.1 and later have a second way through everything. Here there is one.

    async def aload(self):
        return await sync_to_async(self.load)()

    async def asave(self, must_create=False):
        return await sync_to_async(self.save)(must_create)

    async def acreate(self):
        return await sync_to_async(self.create)()

    async def acycle_key(self):
        return await sync_to_async(self.cycle_key)()

    async def adelete(self, session_key=None):
        return await sync_to_async(self.delete)(session_key)

    def _using(self, key):
        return router.db_for_write(self.model, instance=self.model(session_key=key))

    def _in_transaction(self, using, work):
        # Within a longer transaction, also one that is begun by AUTOCOMMIT = False, it is that one that would have to
        # be tried again.
        connection = transaction.get_connection(using)
        attempts = 1 if connection.in_atomic_block or not connection.get_autocommit() else ATTEMPTS
        while True:
            attempts -= 1
            try:
                with transaction.atomic(using=using):
                    return work()
            except OperationalError as error:
                if not attempts or not was_overtaken(error):
                    raise

    def _locked(self, using, key):
        """The rows of this key, at most one, which are locked as they are read until the transaction ends."""
        rows = self.model._base_manager.using(using).filter(session_key=key)
        if not connections[using].features.has_select_for_update:
            # SQLite has one lock, and waits for it with a statement that writes. A transaction that has read before
            # is refused instead, if somebody has written since. So this one writes first.
            rows.update(expire_date=F("expire_date"))
        return rows.select_for_update()

    def _lock(self, using, key):
        """Locks the row until the transaction ends, and gives its text; None if there is none that is alive."""
        for text, end in self._locked(using, key).values_list("session_data", "expire_date"):
            # A session that has expired since it was loaded is over, unless it is saved as one that is.
            if end > timezone.now() or self.get_expiry_age() <= 0:
                return text
        return None

    def _rebase(self, using, text):
        """Merges what others have made of the row, which is locked, into the session."""
        # What this side has itself written in this transaction, and what was not rolled back to a savepoint.
        hooks = [entry[1] for entry in connections[using].run_on_commit]
        written = [hook.text for hook in hooks if isinstance(hook, Committed) and hook.life is self._life]
        if text in written:
            return
        base = written[-1] if written else self._base
        if base is not None and text != self._base:
            theirs = self._read(text)
            # What cannot be read cannot be merged: then it is overwritten, as by Django.
            if theirs is not None:
                serializer = self.serializer()
                self._session_cache = merge(self._read(base) or {}, self._session_cache, theirs, serializer.dumps)
        self._base = text

    def _read(self, text):
        """What is stored in this text; None if it cannot be read."""
        data = self.decode(text)
        if data:
            return data if isinstance(data, dict) else None
        # decode() makes an empty session of one that it cannot read.
        try:
            signing.loads(text, salt=self.key_salt, serializer=self.serializer)
        except Exception:  # noqa: BLE001 (a serializer may raise anything)
            return None
        return data

    def _insert(self, using):
        try:
            self._in_transaction(using, lambda: self._write(using, force_insert=True))
        except IntegrityError as error:
            raise CreateError from error

    def _write(self, using, **how):
        """Stores the session as it is, within a transaction, and gives the text that was stored."""
        row = self.create_model_instance(self._session_cache)
        try:
            row.save(using=using, **how)
        except DatabaseError as error:
            # Django's own, of an update that found no row; those of the database have a cause.
            if "force_update" in how and error.__cause__ is None and not_updated(error):
                raise UpdateError from error
            raise
        transaction.on_commit(Committed(self, row.session_data), using=using)
        return row.session_data


class Committed:
    """What a store has written, waiting for the transaction's end. From then on it is what others have changed or not.

    A rollback forgets it, and the store goes on from what the row was before.
    """

    def __init__(self, store, text):
        self.store, self.life, self.text = store, store._life, text

    def __call__(self):
        # Unless the session was loaded anew or cleared since.
        if self.store._life is self.life:
            self.store._base = self.text


def not_updated(error):
    """Whether this is what Model.save says where there was no row: NotUpdated since Django 6.0."""
    return type(error) is DatabaseError or type(error).__name__ == "NotUpdated"


def was_overtaken(error):
    """Whether another transaction is the reason of this error, so that it may succeed when tried again."""
    cause = error.__cause__
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    return state in SQLSTATES or (state is None and bool(error.args) and error.args[0] in ERROR_CODES)
