"""Writers of one row at the same moment: threads, processes, transactions that overlap."""

from tests.base import IS_POSTGRES, IS_SQLITE, SiteTest, in_threads  # isort: skip

import os
import random
import subprocess
import sys
import threading
import time
import unittest

from django.contrib.sessions.backends import db as stock_db
from django.contrib.sessions.backends.base import UpdateError
from django.contrib.sessions.exceptions import SessionInterrupted
from django.contrib.sessions.models import Session
from django.db import OperationalError, connections, transaction

from session_gateway_django import cached_db, db
from tests.site import Router

# How many requests each worker makes.
REQUESTS = 15


class History:
    """Who was told what, by whom, in which order. Each worker counts up under a name of its own."""

    def __init__(self):
        self.lock = threading.Lock()
        self.stored = {}
        self.lost = []

    def saved(self, name, number):
        with self.lock:
            self.stored[name] = number

    def begin(self):
        """What is stored by now: a session that is loaded after this has it all."""
        with self.lock:
            return dict(self.stored)

    def loaded(self, before, session, by):
        for name, number in before.items():
            if session.get(name, 0) < number:
                self.lost.append(f"{by} does not see {name} = {number}")


class RaceTest(SiteTest):
    def test_no_update_is_lost_among_threads_that_load_change_and_save_at_random(self):
        history = self.random_history(db.SessionStore)
        self.assertEqual(history.lost, [])

    def test_the_same_history_finds_what_djangos_own_engine_loses(self):
        self.assertNotEqual(self.random_history(stock_db.SessionStore).lost, [])

    def random_history(self, store):
        """Workers that share a session, each with requests as Django has them: load, something, save."""
        key = self.new(store, start=0)
        history = History()
        # Each has loaded before the first one saves, so that Django's own engine has something to lose.
        ready = threading.Barrier(4)

        def work(name):
            number = 0
            for _ in range(REQUESTS):
                before = history.begin()
                session = store(key)
                history.loaded(before, session, name)
                if number == 0:
                    ready.wait(30)
                for _ in range(random.randrange(1, 3)):
                    number += 1
                    session[name] = number
                    session.setdefault("list", []).append(name)
                    del session["list"][:-3]
                    session.modified = True
                    session.save()
                    history.saved(name, number)

        in_threads(*[lambda name=f"worker{index}": work(name) for index in range(4)])
        before = history.begin()
        history.loaded(before, store(key), "the end")
        return history

    def test_no_update_is_lost_among_processes(self):
        key = self.new(db.SessionStore, start=0)
        arguments = [sys.executable, "-m", "tests.writer", key]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        writers = [
            subprocess.Popen([*arguments, f"p{index}", "25"], env=environment, stdin=subprocess.PIPE)
            for index in range(3)
        ]
        # They begin when all are there.
        for writer in writers:
            writer.stdin.close()
        self.assertEqual([writer.wait(120) for writer in writers], [0, 0, 0])
        self.assertEqual(self.row(key), {"start": 0, "p0": 25, "p1": 25, "p2": 25})

    def test_two_new_keys_at_once_make_one_session_of_a_login_and_lose_nothing(self):
        for _ in range(5):
            Session.objects.all().delete()
            key = self.new(db.SessionStore, _auth_user_id="1")
            ready = threading.Barrier(3)

            def cycle():
                session = db.SessionStore(key)
                dict(session)
                ready.wait(30)
                try:
                    session.cycle_key()
                except SessionInterrupted:
                    return None
                return session.session_key

            def write():
                session = db.SessionStore(key)
                session["a"] = 1
                ready.wait(30)
                try:
                    session.save()
                except UpdateError:
                    return False
                return True

            first, second, written = in_threads(cycle, cycle, write)
            self.assertEqual([first, second].count(None), 1)
            rows = list(Session.objects.all())
            self.assertEqual([row.pk for row in rows], [first or second])
            self.assertEqual("a" in rows[0].get_decoded(), written)

    def test_a_save_waits_for_the_row_and_merges_what_the_other_transaction_has_stored(self):
        key = self.new(db.SessionStore, a=1)
        session = db.SessionStore(key)
        session["c"] = 1
        holds, saves = threading.Event(), threading.Event()

        def hold():
            with transaction.atomic():
                self.other(key, b=1)
                holds.set()
                saves.wait(30)

        def save():
            holds.wait(30)
            # From here on it can only wait, or be too late.
            saves.set()
            session.save()

        in_threads(hold, save)
        self.assertEqual(self.row(key), {"a": 1, "b": 1, "c": 1})

    def test_a_row_that_is_deleted_while_a_save_waits_for_it_stays_deleted(self):
        key = self.new(db.SessionStore, a=1)
        session = db.SessionStore(key)
        session["c"] = 1
        holds, saves = threading.Event(), threading.Event()

        def hold():
            with transaction.atomic():
                db.SessionStore(key).flush()
                holds.set()
                saves.wait(30)

        def save():
            holds.wait(30)
            saves.set()
            with self.assertRaises(UpdateError):
                session.save()

        in_threads(hold, save)
        self.assertEqual(Session.objects.count(), 0)

    @unittest.skipIf(IS_SQLITE, "SQLite has one kind of transaction")
    def test_at_repeatable_read_the_newest_row_is_merged(self):
        Router.here.write = Router.here.read = "repeatable"
        self.addCleanup(Router.here.__dict__.clear)
        key = self.new(db.SessionStore, a=1)
        session = db.SessionStore(key)
        dict(session)
        self.other(key, b=1)
        session["c"] = 1
        session.save()
        self.assertEqual(self.row(key), {"a": 1, "b": 1, "c": 1})

        # Others commit while this one waits, which PostgreSQL answers with an error: it is tried again.
        history = History()

        def work(name):
            Router.here.write = Router.here.read = "repeatable"
            for number in range(1, 16):
                before = history.begin()
                own = db.SessionStore(key)
                history.loaded(before, own, name)
                own[name] = number
                while True:
                    try:
                        own.save()
                        break
                    except OperationalError:
                        # Five times in a row can happen where three do nothing else.
                        if not IS_POSTGRES:
                            raise
                history.saved(name, number)

        in_threads(*[lambda name=f"worker{index}": work(name) for index in range(3)])
        self.assertEqual(history.lost, [])
        self.assertEqual([self.row(key)[f"worker{index}"] for index in range(3)], [15] * 3)

    @unittest.skipUnless(IS_POSTGRES, "only PostgreSQL ends such a transaction")
    def test_a_save_that_was_overtaken_is_tried_again(self):
        Router.here.write = Router.here.read = "repeatable"
        self.addCleanup(Router.here.__dict__.clear)
        key = self.new(db.SessionStore, a=1)
        session = db.SessionStore(key)
        session["c"] = 1
        lock, tries = session._lock, []

        def overtaken(using, key):
            tries.append(key)
            if len(tries) == 1:
                # The transaction's snapshot is from before this.
                self.assertEqual(Session.objects.count(), 1)
                in_threads(lambda: self.other(key, b=1))
            return lock(using, key)

        session._lock = overtaken
        session.save()
        self.assertEqual(len(tries), 2)
        self.assertEqual(self.row(key), {"a": 1, "b": 1, "c": 1})
        # Within a longer transaction it is not for the session to try again.
        tries.clear()
        session["d"] = 1
        with self.assertRaises(OperationalError), transaction.atomic(using="repeatable"):
            session.save()
        self.assertEqual(len(tries), 1)
        self.assertEqual(self.row(key), {"a": 1, "b": 1, "c": 1})

    @unittest.skipUnless(IS_POSTGRES, "only PostgreSQL ends such a transaction")
    def test_a_logout_that_waits_for_a_save_wins(self):
        key = self.new(db.SessionStore, a=1)
        holds = threading.Event()

        def hold():
            with transaction.atomic():
                self.other(key, b=1)
                holds.set()
                # Until the other one waits for the row.
                waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                waiting += " AND wait_event_type = 'Lock'"
                until = time.monotonic() + 30
                with connections["default"].cursor() as cursor:
                    while time.monotonic() < until:
                        cursor.execute("SELECT pg_stat_clear_snapshot()")
                        cursor.execute(waiting)
                        if cursor.fetchone()[0]:
                            return
                raise AssertionError("nobody waits")

        def log_out():
            # As a server or a role may be set: also for a statement without a transaction.
            with connections["default"].cursor() as cursor:
                cursor.execute("SET default_transaction_isolation = 'repeatable read'")
            holds.wait(30)
            db.SessionStore(key).flush()

        in_threads(hold, log_out)
        self.assertEqual(Session.objects.count(), 0)

    @unittest.skipUnless(IS_SQLITE, "SQLite's own rules")
    def test_on_sqlite_a_save_of_its_own_never_meets_a_locked_database(self):
        for mode in ["delete", "wal"]:
            with connections["default"].cursor() as cursor:
                cursor.execute(f"PRAGMA journal_mode = {mode}")
            key = self.new(db.SessionStore, start=0)

            def work(name):
                for number in range(15):
                    session = db.SessionStore(key)
                    session[name] = number
                    session.save()

            in_threads(*[lambda name=f"worker{index}": work(name) for index in range(4)])
            self.assertEqual([self.row(key)[f"worker{index}"] for index in range(4)], [14] * 4)

    @unittest.skipUnless(IS_SQLITE, "SQLite's own rules")
    def test_on_sqlite_a_transaction_that_has_read_first_is_refused_if_it_does_not_begin_with_the_lock(self):
        import django

        with connections["default"].cursor() as cursor:
            cursor.execute("PRAGMA journal_mode = wal")
        key = self.new(db.SessionStore, a=1)
        with self.assertRaises(OperationalError), transaction.atomic():
            session = db.SessionStore(key)
            dict(session)
            in_threads(lambda: self.other(key, b=1))
            session["c"] = 1
            session.save()
        self.assertEqual(self.row(key), {"a": 1, "b": 1})
        if django.VERSION < (5, 1):
            return
        connection = connections["default"]
        connection.close()
        connection.settings_dict["OPTIONS"]["transaction_mode"] = "IMMEDIATE"
        try:
            begun = threading.Event()

            def view():
                with transaction.atomic():
                    session = db.SessionStore(key)
                    dict(session)
                    begun.set()
                    session["c"] = 1
                    session.save()

            def other():
                begun.wait(30)
                self.other(key, d=1)

            in_threads(view, other)
        finally:
            connection.close()
            del connection.settings_dict["OPTIONS"]["transaction_mode"]
        self.assertEqual(self.row(key), {"a": 1, "b": 1, "c": 1, "d": 1})


class CachedRaceTest(SiteTest):
    def test_no_update_is_lost_though_sessions_come_from_a_cache(self):
        key = self.new(cached_db.SessionStore, start=0)

        def work(name):
            for number in range(REQUESTS):
                session = cached_db.SessionStore(key)
                dict(session)
                session[name] = number
                session.save()

        in_threads(*[lambda name=f"worker{index}": work(name) for index in range(4)])
        self.assertEqual(self.row(key), {"start": 0, **{f"worker{index}": REQUESTS - 1 for index in range(4)}})
