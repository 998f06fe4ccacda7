"""What is particular: the cache, asynchronous code, other models, routers."""

from tests.base import IS_SQLITE, SiteTest, in_threads  # isort: skip

import unittest
from unittest import mock

import django
from asgiref.sync import async_to_sync
from django.contrib.sessions.backends import cached_db as stock_cached_db
from django.contrib.sessions.backends.base import UpdateError
from django.contrib.sessions.exceptions import SessionInterrupted
from django.contrib.sessions.models import Session
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext, override_settings

from session_gateway_django import cached_db, db
from tests import owned, site
from tests.models import CustomerSession


class CacheTest(SiteTest):
    def setUp(self):
        super().setUp()
        self.key = self.new(cached_db.SessionStore, a=1)

    def loaded(self, key=None):
        return dict(cached_db.SessionStore(key or self.key))

    def entry(self):
        """What there is to believe."""
        return cached_db.SessionStore()._believed(self.key)

    def test_a_session_is_read_from_the_cache_and_for_no_longer_than_is_said(self):
        with CaptureQueriesContext(connection) as queries:
            self.assertEqual(self.loaded(), {"a": 1})
        self.assertEqual(len(queries), 0)
        self.other(self.key, a=2)
        self.assertEqual(self.loaded(), {"a": 1})
        # The second that has begun is over: no entry is ever older than it is said.
        self.assertEqual(set(site.Cache.lifetimes), {4})
        with override_settings(SESSION_GATEWAY_CACHE_SECONDS=60):
            caches["default"].clear()
            self.assertEqual(self.loaded(), {"a": 2})
        self.assertEqual(site.Cache.lifetimes[-1], 59)

    def test_an_entry_ends_with_its_session(self):
        session = cached_db.SessionStore(self.key)
        session.set_expiry(3)
        session.save()
        self.assertEqual(site.Cache.lifetimes[-1], 2)
        caches["default"].clear()
        site.Cache.lifetimes.clear()
        self.loaded()
        self.assertTrue(all(seconds <= 2 for seconds in site.Cache.lifetimes), site.Cache.lifetimes)

    def test_the_time_that_a_read_has_taken_counts(self):
        caches["default"].clear()
        with mock.patch.object(cached_db.time, "monotonic", side_effect=[100.0, 103.0]):
            self.loaded()
        self.assertEqual(site.Cache.lifetimes[-1], 2)
        caches["default"].clear()
        with mock.patch.object(cached_db.time, "monotonic", side_effect=[100.0, 102.1]):
            self.loaded()
        self.assertEqual(site.Cache.lifetimes[-1], 2)
        for now in [104.1, 105.0]:
            caches["default"].clear()
            with mock.patch.object(cached_db.time, "monotonic", side_effect=[100.0, now]):
                self.loaded()
            self.assertIsNone(self.entry())

    def test_a_save_from_an_old_entry_loses_nothing_and_renews_it(self):
        self.loaded()
        self.other(self.key, b=1)
        session = cached_db.SessionStore(self.key)
        self.assertEqual(dict(session), {"a": 1})
        session["c"] = 1
        session.save()
        self.assertEqual(self.row(self.key), {"a": 1, "b": 1, "c": 1})
        self.assertEqual(self.loaded(), {"a": 1, "b": 1, "c": 1})

    def test_a_session_that_is_gone_is_never_saved_from_the_cache_nor_believed_after(self):
        for change in ["save", "cycle_key"]:
            self.key = self.new(cached_db.SessionStore, _auth_user_id="1")
            Session.objects.all().delete()
            session = cached_db.SessionStore(self.key)
            session["b"] = 1
            with self.assertRaises((UpdateError, SessionInterrupted)):
                getattr(session, change)()
            self.assertEqual(Session.objects.count(), 0)
            self.assertIsNone(self.entry())
            self.assertEqual(self.loaded(), {})

    def test_a_logout_empties_the_cache_that_of_djangos_own_engine_too(self):
        dict(stock_cached_db.SessionStore(self.key))
        self.assertIsNotNone(caches["default"].get(stock_cached_db.KEY_PREFIX + self.key))
        cached_db.SessionStore(self.key).flush()
        self.assertIsNone(self.entry())
        self.assertEqual(dict(stock_cached_db.SessionStore(self.key)), {})

    def test_an_entry_that_comes_between_a_logout_and_its_commit_goes_with_the_commit(self):
        with transaction.atomic():
            cached_db.SessionStore(self.key).flush()
            # The transaction takes so long that the mark of the end has ended, too.
            caches["default"].clear()
            # As another process does that still sees the row.
            caches["default"].set(cached_db.SessionStore.cache_key_prefix + self.key, "anything")
        self.assertIsNone(self.entry())

    def overlapping(self, change):
        """A reader that has read the row before `change` happens, and puts it into the cache after."""
        caches["default"].clear()
        read = cached_db.SessionStore._get_session_from_db

        def slow(session):
            row = read(session)
            change()
            return row

        with mock.patch.object(cached_db.SessionStore, "_get_session_from_db", slow):
            return self.loaded()

    def test_a_logout_counts_also_for_those_who_come_after_a_reader_that_overlaps_it(self):
        for change in ["flush", "cycle_key"]:
            self.key = self.new(cached_db.SessionStore, _auth_user_id="1")
            ending = cached_db.SessionStore(self.key)
            dict(ending)
            self.assertEqual(self.overlapping(getattr(ending, change)), {"_auth_user_id": "1"})
            self.assertIsNone(self.row(self.key))
            self.assertIsNone(self.entry())
            self.assertEqual(self.loaded(), {})

    def test_a_logout_counts_also_where_a_save_comes_late_with_its_copy(self):
        session = cached_db.SessionStore(self.key)
        session["b"] = 1
        remember = session._remember

        def late(*arguments):
            # The save is committed, and its process slow.
            cached_db.SessionStore(self.key).flush()
            return remember(*arguments)

        with mock.patch.object(session, "_remember", late):
            session.save()
        self.assertIsNone(self.entry())
        self.assertEqual(self.loaded(), {})

    def test_a_logout_is_remembered_for_longer_than_any_copy_lives(self):
        lifetimes = {}
        put = site.Cache.set

        def watched(cache, key, value, timeout=None, version=None):
            lifetimes[key] = timeout
            put(cache, key, value, timeout, version)

        with mock.patch.object(site.Cache, "set", watched):
            cached_db.SessionStore(self.key).flush()
        self.assertEqual(lifetimes, {cached_db.SessionStore.ended_key_prefix + self.key: 120})

    def test_an_end_that_was_rolled_back_is_none(self):
        with self.assertRaises(ZeroDivisionError), transaction.atomic():
            cached_db.SessionStore(self.key).flush()
            raise ZeroDivisionError
        self.assertEqual(self.loaded(), {"a": 1})

    def test_a_save_is_not_undone_by_a_reader_that_overlaps_it(self):
        session = cached_db.SessionStore(self.key)
        dict(session)
        session["a"] = 2
        self.assertEqual(self.overlapping(session.save), {"a": 1})
        self.assertEqual(self.loaded(), {"a": 2})

    def test_nor_is_one_whose_transaction_takes_long(self):
        session = cached_db.SessionStore(self.key)
        dict(session)
        session["a"] = 2

        clock = mock.Mock(monotonic=mock.Mock(side_effect=[100.0, 106.0]))
        with mock.patch.object(cached_db, "time", clock), transaction.atomic():
            session.save()
            # The empty copy has ended before this transaction has, and a reader has come.
            caches["default"].set(cached_db.SessionStore.cache_key_prefix + self.key, "what was before")
        self.assertIsNone(self.entry())
        self.assertEqual(self.loaded(), {"a": 2})

    def test_within_a_transaction_only_the_present_is_remembered(self):
        caches["default"].clear()
        with transaction.atomic():
            self.loaded()
        # SQLite's transactions see what was so when they began.
        self.assertEqual(self.entry() is None, IS_SQLITE)
        site.Router.here.write = site.Router.here.read = "repeatable"
        self.addCleanup(site.Router.here.__dict__.clear)
        caches["default"].clear()
        with transaction.atomic(using="repeatable"):
            self.loaded()
        self.assertIsNone(self.entry())
        self.loaded()
        self.assertIsNotNone(self.entry())

    @unittest.skipIf(IS_SQLITE, "SQLite has one kind of transaction")
    def test_nor_is_the_past_where_only_the_server_knows_of_it(self):
        with connection.cursor() as cursor:
            if connection.vendor == "postgresql":
                cursor.execute("SET default_transaction_isolation = 'repeatable read'")
            else:
                unknown = mock.patch.object(connection, "isolation_level", None)
                unknown.start()
                self.addCleanup(unknown.stop)
        self.addCleanup(connection.close)
        caches["default"].clear()
        with transaction.atomic():
            self.loaded()
        self.assertIsNone(self.entry())

    def test_what_is_not_committed_is_never_in_the_cache(self):
        session = cached_db.SessionStore(self.key)
        try:
            with transaction.atomic():
                session["a"] = 2
                session.save()
                self.assertIsNone(self.entry())
                self.assertEqual(self.loaded(), {"a": 2})
                raise ZeroDivisionError
        except ZeroDivisionError:
            pass
        self.assertIsNone(self.entry())
        self.assertEqual(self.loaded(), {"a": 1})
        with transaction.atomic():
            session.save()
        self.assertIsNotNone(self.entry())
        self.assertEqual(self.loaded(), {"a": 2})

    def test_without_its_cache_a_site_goes_on_and_no_key_is_logged(self):
        self.addCleanup(setattr, site.Cache, "broken", False)
        site.Cache.broken = True
        with self.assertLogs("session_gateway_django", "WARNING") as logs:
            session = cached_db.SessionStore(self.key)
            session["b"] = 1
            session.save()
            self.assertEqual(self.loaded(), {"a": 1, "b": 1})
            session.flush()
        self.assertEqual(Session.objects.count(), 0)
        self.assertIn("ConnectionError", logs.output[0])
        self.assertNotIn("sessionkey", " ".join(logs.output))
        self.assertFalse(any(record.exc_info for record in logs.records))

    def test_a_cache_that_is_believed_for_long_is_refused(self):
        for seconds in [0, 1, 61, "5", True, 0.5]:
            with override_settings(SESSION_GATEWAY_CACHE_SECONDS=seconds), self.assertRaises(ImproperlyConfigured):
                cached_db.SessionStore()

    def test_a_session_without_a_key_is_empty(self):
        self.assertEqual(cached_db.SessionStore().load(), {})


@unittest.skipIf(django.VERSION < (5, 1), "sessions have asynchronous methods since Django 5.1")
class AsyncTest(SiteTest):
    def test_asynchronous_code_merges_as_any_other(self):
        for engine in [db, cached_db]:
            session = engine.SessionStore(self.new(engine.SessionStore, a=1))

            async def load():
                return await session.aget("a")

            async def save():
                await session.aset("c", 1)
                await session.asave()

            self.assertEqual(async_to_sync(load)(), 1)
            self.other(session.session_key, b=1)
            async_to_sync(save)()
            self.assertEqual(self.row(session.session_key), {"a": 1, "b": 1, "c": 1})

            self.other(session.session_key, d=1)
            old = session.session_key
            async_to_sync(session.acycle_key)()
            self.assertIsNone(self.row(old))
            self.assertEqual(self.row(session.session_key), {"a": 1, "b": 1, "c": 1, "d": 1})

            Session.objects.all().delete()
            with self.assertRaises(UpdateError):
                async_to_sync(save)()
            async_to_sync(session.aflush)()
            async_to_sync(save)()
            self.assertEqual(self.row(session.session_key), {"c": 1})
            self.assertEqual(dict(engine.SessionStore(session.session_key)), {"c": 1})
            async_to_sync(session.adelete)()
            self.assertEqual(Session.objects.count(), 0)


class OwnModelTest(SiteTest):
    def test_an_engine_with_a_table_of_its_own_merges_and_fills_its_columns(self):
        CustomerSession.objects.all().delete()
        session = owned.SessionStore()
        session["a"] = 1
        session.save()
        other = owned.SessionStore(session.session_key)
        other["b"] = 1
        other["_auth_user_id"] = "7"
        other.save()
        session["c"] = 1
        session.save()
        row = CustomerSession.objects.get()
        self.assertEqual(row.get_decoded(), {"a": 1, "b": 1, "c": 1, "_auth_user_id": "7"})
        # It was filled from what was merged.
        self.assertEqual(row.customer, "7")
        self.assertEqual(Session.objects.count(), 0)


class RouterTest(SiteTest):
    def test_rows_are_locked_written_and_deleted_where_the_router_writes(self):
        for engine in [db, cached_db]:
            key = self.new(engine.SessionStore, a=1)
            session = engine.SessionStore(key)
            dict(session)
            # What it reads from has not heard of anything, as a replica.
            site.Router.here.write = "repeatable"
            with mock.patch.object(site.Router, "db_for_read", return_value="nowhere"):
                with CaptureQueriesContext(connection) as queries:
                    session["b"] = 1
                    session.save()
                    session.flush()
            site.Router.here.__dict__.clear()
            self.assertEqual(len(queries), 0)
            self.assertEqual(Session.objects.count(), 0)


class TransactionTest(SiteTest):
    def test_a_site_with_atomic_requests_logs_in_and_out(self):
        from django.contrib.auth import get_user_model
        from django.test import Client

        get_user_model().objects.all().delete()
        get_user_model().objects.create_user("alice", id=1)
        for engine in ["db", "cached_db"]:
            with override_settings(SESSION_ENGINE=f"session_gateway_django.{engine}"):
                client = Client()
                client.get("/touch/?cart=1")
                anonymous = client.cookies["sessionid"].value
                with mock.patch.dict(connection.settings_dict, ATOMIC_REQUESTS=True):
                    client.get("/login/")
                    key = client.cookies["sessionid"].value
                    self.assertIsNone(self.row(anonymous))
                    self.assertEqual(self.row(key)["_auth_user_id"], "1")
                    self.assertEqual(self.row(key)["cart"], "1")
                    client.get("/logout/")
                self.assertEqual(Session.objects.count(), 0)

    def test_a_site_that_commits_by_hand_merges_too(self):
        for engine in [db, cached_db]:
            key = self.new(engine.SessionStore, a=1)
            connection.set_autocommit(False)
            try:
                session = engine.SessionStore(key)
                session["b"] = 1
                session.save()
                connection.commit()
                in_threads(lambda key=key: self.other(key, b=2))
                session["c"] = 1
                session.save()
                connection.commit()
                self.assertEqual(dict(engine.SessionStore(key)), {"a": 1, "b": 2, "c": 1})
                session["b"] = 3
                session.save()
                connection.rollback()
                # On SQLite atomic() commits there too: the end of its savepoint is that of the transaction.
                self.assertEqual(self.row(key), {"a": 1, "b": 3 if IS_SQLITE else 2, "c": 1})
                session.save()
                connection.commit()
                self.assertEqual(self.row(key), {"a": 1, "b": 3, "c": 1})
                session.flush()
                connection.commit()
            finally:
                connection.rollback()
                connection.set_autocommit(True)
            self.assertEqual(Session.objects.count(), 0)
            self.assertEqual(dict(engine.SessionStore(key)), {})

    def test_of_two_requests_at_once_after_the_secret_key_has_moved_one_is_refused(self):
        """As the README says: a logout could not be told from this."""
        from django.conf import settings
        from django.contrib.auth import get_user_model
        from django.test import Client

        get_user_model().objects.all().delete()
        get_user_model().objects.create_user("alice", id=1)
        first, second = Client(), Client()
        first.get("/login/")
        second.cookies["sessionid"] = first.cookies["sessionid"].value
        answers = []

        def happens():
            site.between.happens = lambda: None
            answers.append(first.get("/user/"))

        with override_settings(SECRET_KEY="another one, for half a test", SECRET_KEY_FALLBACKS=[settings.SECRET_KEY]):
            site.between.happens = happens
            with self.assertLogs("django.request", "WARNING"):
                answers.append(second.get("/user/"))
            answers.append(first.get("/user/"))
        self.assertEqual([answer.status_code for answer in answers], [200, 400, 200])
        self.assertEqual([answers[0].content, answers[2].content], [b"1", b"1"])
        self.assertEqual(Session.objects.count(), 1)

    def test_the_session_of_a_test_client_can_be_changed_in_a_test_with_transactions(self):
        """As in a project's own TestCase: nothing is ever committed there."""
        from django.test import Client

        for engine in [db, cached_db]:
            with override_settings(SESSION_ENGINE=engine.__name__), transaction.atomic():
                client = Client()
                client.get("/touch/?a=1")
                session = client.session
                session["b"] = 1
                session.save()
                client.get("/touch/?c=1")
                self.assertEqual(self.row(session.session_key), {"a": "1", "b": 1, "c": "1"})
                session["d"] = 1
                session.save()
                self.assertEqual(dict(client.session), {"a": "1", "b": 1, "c": "1", "d": 1})
                transaction.set_rollback(True)
                self.assertEqual(in_threads(Session.objects.count), [0])
