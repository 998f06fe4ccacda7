"""What the tests share."""

import os
import threading
import unittest

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

import django

django.setup()

from django.contrib.sessions.backends import db as stock_db  # noqa: E402
from django.contrib.sessions.models import Session  # noqa: E402
from django.core.cache import caches  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection, connections, transaction  # noqa: E402
from django.db.models import F  # noqa: E402
from django.test.utils import setup_test_environment  # noqa: E402

from tests import site  # noqa: E402

IS_SQLITE = connection.vendor == "sqlite"
IS_POSTGRES = connection.vendor == "postgresql"

setup_test_environment()
call_command("migrate", run_syncdb=True, verbosity=0)


class SiteTest(unittest.TestCase):
    """A test with tables that are empty, and commits that are commits."""

    def setUp(self):
        Session.objects.all().delete()
        caches["default"].clear()
        site.Cache.lifetimes.clear()
        self.addCleanup(setattr, site.between, "happens", lambda: None)

    def row(self, key):
        """The session as Django's own engine reads it; None if there is none."""
        row = Session.objects.filter(pk=key).first()
        return None if row is None else stock_db.SessionStore().decode(row.session_data)

    def other(self, key, remove=(), **changes):
        """Stores changes as another writer does: under a lock, by the row as it is, past any cache."""
        with transaction.atomic():
            rows = Session.objects.filter(pk=key)
            # A statement that writes comes first: on each database it takes the lock.
            rows.update(expire_date=F("expire_date"))
            row = rows.get()
            data = {**row.get_decoded(), **changes}
            for name in remove:
                del data[name]
            store = stock_db.SessionStore(key)
            store._session_cache = data
            rows.update(session_data=store.encode(data), expire_date=store.get_expiry_date())

    def new(self, store, **data):
        """Stores a session with this data and gives its key."""
        session = store()
        session.update(data)
        session.save()
        return session.session_key


def in_threads(*works):
    """Does these at once and gives their results; raises what they raise."""
    results = [None] * len(works)
    errors = []

    def run(index, work):
        try:
            results[index] = work()
        except BaseException as error:
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=item) for item in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if errors:
        raise errors[0]
    if any(thread.is_alive() for thread in threads):
        raise AssertionError("a thread has not come to its end")
    return results
