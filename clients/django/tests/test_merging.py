"""What a save keeps of other writers, alone and beside others. Each engine does the same."""

from tests.base import IS_SQLITE, SiteTest  # isort: skip

import unittest
from datetime import datetime, timedelta, timezone
from unittest import mock

from django.contrib.sessions.backends import cached_db as stock_cached_db
from django.contrib.sessions.backends import db as stock_db
from django.contrib.sessions.backends.base import CreateError, UpdateError
from django.contrib.sessions.exceptions import SessionInterrupted
from django.contrib.sessions.models import Session
from django.db import OperationalError, connection, transaction
from django.test.utils import override_settings

from session_gateway_django import cached_db, db


class Rolled(Exception):
    """Rolls a transaction back."""


def overtaken():
    """What the databases say when another transaction goes first."""
    serialization = OperationalError("could not serialize access due to concurrent update")
    serialization.__cause__ = Exception()
    serialization.__cause__.sqlstate = "40001"
    return [serialization, OperationalError(1213, "Deadlock found when trying to get lock")]


def fails_once(work, error):
    """What fails the first time that it is called, and then is `work`."""
    errors = [error]

    def run(*args, **kwargs):
        if errors:
            raise errors.pop()
        return work(*args, **kwargs)

    return run


class Merging:
    """The tests, for the engine ``engine``."""

    def begin(self, **data):
        """A session with this data, as a request has it that has just loaded it."""
        session = self.engine.SessionStore(self.new(self.engine.SessionStore, **data))
        dict(session)
        return session

    def test_a_save_keeps_what_others_have_set_changed_and_deleted(self):
        session = self.begin(same=1, changed=1, gone=1)
        self.other(session.session_key, remove=["gone"], changed=2, added=3)
        session["own"] = 4
        session.save()
        self.assertEqual(self.row(session.session_key), {"same": 1, "changed": 2, "added": 3, "own": 4})
        self.assertEqual(dict(session), {"same": 1, "changed": 2, "added": 3, "own": 4})

    def test_of_two_changes_of_one_key_the_later_save_counts(self):
        session = self.begin(a=1, b=1)
        self.other(session.session_key, a=2)
        session["a"] = 3
        session.save()
        self.assertEqual(self.row(session.session_key), {"a": 3, "b": 1})

    def test_a_deletion_counts_against_an_earlier_change_and_a_change_against_an_earlier_deletion(self):
        session = self.begin(a=1, b=1)
        self.other(session.session_key, remove=["b"], a=2)
        del session["a"]
        session["b"] = 3
        session.save()
        self.assertEqual(self.row(session.session_key), {"b": 3})

    def test_a_change_within_a_value_is_a_change(self):
        session = self.begin(cart=[{"id": 1, "count": 1}], other=[1])
        cart, untouched = session["cart"], session["other"]
        self.other(session.session_key, x=1)
        cart[0]["count"] = 2
        session.save()
        self.assertEqual(self.row(session.session_key)["cart"], [{"id": 1, "count": 2}])
        self.assertIs(session["cart"], cart)
        self.assertIs(session["other"], untouched)
        # What somebody holds is still a part of the session.
        self.other(session.session_key, x=2)
        cart.append(3)
        session.save()
        self.assertEqual(self.row(session.session_key), {"cart": [{"id": 1, "count": 2}, 3], "other": [1], "x": 2})

    def test_values_that_are_equal_and_not_the_same_are_changes(self):
        session = self.begin(a=1, b=1, c=0)
        self.other(session.session_key, a=5, b=5, c=5)
        session.update({"a": True, "b": 1.0, "c": False})
        session.save()
        row = self.row(session.session_key)
        self.assertEqual([type(row[name]) for name in "abc"], [bool, float, bool])

    def test_values_that_json_changes_are_no_changes_again(self):
        session = self.begin(a=1)
        session["pair"] = (1, 2)
        session["table"] = {1: "x"}
        session.save()
        self.other(session.session_key, pair=[3], table={"2": "y"})
        session["b"] = 1
        session.save()
        self.assertEqual(self.row(session.session_key), {"a": 1, "b": 1, "pair": [3], "table": {"2": "y"}})

    def test_each_of_several_saves_merges_with_what_was_stored_since_the_last_one(self):
        session = self.begin(a=1)
        session["a"] = 2
        session.save()
        self.other(session.session_key, b=1)
        # Back to what was loaded at first is a change, too.
        session["a"] = 1
        session.save()
        self.assertEqual(self.row(session.session_key), {"a": 1, "b": 1})
        self.other(session.session_key, a=5, b=2)
        session["c"] = 1
        session.save()
        self.assertEqual(self.row(session.session_key), {"a": 5, "b": 2, "c": 1})

    def test_a_session_of_which_nothing_was_changed_keeps_all_and_ends_later(self):
        session = self.begin(a=1)
        Session.objects.update(expire_date=datetime.now(timezone.utc) + timedelta(hours=1))
        self.other(session.session_key, a=2)
        Session.objects.update(expire_date=datetime.now(timezone.utc) + timedelta(hours=1))
        session.save()
        self.assertEqual(self.row(session.session_key), {"a": 2})
        end = Session.objects.get().expire_date
        self.assertGreater(end, datetime.now(timezone.utc) + timedelta(days=13))

    def test_the_end_that_another_has_set_is_kept_and_the_row_ends_by_it(self):
        session = self.begin(a=1)
        self.other(session.session_key, _session_expiry=600)
        session["a"] = 2
        session.save()
        self.assertEqual(self.row(session.session_key), {"a": 2, "_session_expiry": 600})
        left = Session.objects.get().expire_date - datetime.now(timezone.utc)
        self.assertTrue(timedelta(seconds=590) < left <= timedelta(seconds=600), left)

    def test_an_end_that_is_set_here_leaves_what_others_have_stored(self):
        session = self.begin(a=1)
        self.other(session.session_key, a=2)
        session.set_expiry(300)
        session.save()
        self.assertEqual(self.row(session.session_key), {"a": 2, "_session_expiry": 300})
        self.other(session.session_key, a=3)
        session.set_expiry(None)
        session.save()
        self.assertEqual(self.row(session.session_key), {"a": 3})

    def test_a_session_that_is_gone_is_an_error_and_stays_gone(self):
        session = self.begin(a=1)
        Session.objects.all().delete()
        session["a"] = 2
        for _ in range(2):
            with self.assertRaises(UpdateError):
                session.save()
        self.assertEqual(Session.objects.count(), 0)

    def test_a_session_that_has_expired_since_it_was_loaded_is_over(self):
        for change in ["save", "cycle_key"]:
            session = self.begin(_auth_user_id="1")
            past = datetime.now(timezone.utc) - timedelta(seconds=1)
            Session.objects.update(expire_date=past)
            session["a"] = 2
            with self.assertRaises((UpdateError, SessionInterrupted)):
                getattr(session, change)()
            self.assertEqual([row.expire_date for row in Session.objects.all()], [past])
            self.assertEqual(self.row(session.session_key), {"_auth_user_id": "1"})
            session.flush()
            self.assertEqual(Session.objects.count(), 0)

    def test_a_session_that_has_expired_is_over_on_a_site_without_time_zones_too(self):
        from django.utils import timezone as of_the_site

        with override_settings(USE_TZ=False, TIME_ZONE="Asia/Tokyo"):
            session = self.begin(a=1)
            session["a"] = 2
            session.save()
            Session.objects.update(expire_date=of_the_site.now() - timedelta(seconds=1))
            session["a"] = 3
            with self.assertRaises(UpdateError):
                session.save()
            self.assertEqual(self.row(session.session_key), {"a": 2})

    def test_a_session_that_is_made_to_expire_can_be_saved_once_more(self):
        session = self.begin(a=1)
        session.set_expiry(-1)
        for _ in range(2):
            session.save()
        self.assertLess(Session.objects.get().expire_date, datetime.now(timezone.utc))

    def test_what_an_anonymous_visitor_had_goes_on_though_the_session_has_expired(self):
        session = self.begin(cart=[1])
        Session.objects.update(expire_date=datetime.now(timezone.utc) - timedelta(seconds=1))
        session.cycle_key()
        self.assertEqual(self.row(session.session_key), {"cart": [1]})
        self.assertEqual(Session.objects.count(), 1)

    def test_a_logout_that_another_transaction_overtakes_is_made_again(self):
        for error in overtaken():
            session = self.begin(a=1)
            with mock.patch.object(Session, "delete", fails_once(Session.delete, error)):
                session.flush()
            self.assertEqual(Session.objects.count(), 0)

    def test_what_is_overtaken_is_tried_five_times_and_within_a_transaction_once(self):
        session = self.begin(a=1)
        for error in overtaken():
            for work in [session.save, session.delete]:
                with mock.patch.object(session, "_locked", side_effect=error) as tries:
                    with self.assertRaises(OperationalError):
                        work()
                    self.assertEqual(tries.call_count, 5)
                    tries.reset_mock()
                    with self.assertRaises(OperationalError), transaction.atomic():
                        work()
                    self.assertEqual(tries.call_count, 1)
                    tries.reset_mock()
                    # There is always a transaction then: it has more in it than this save.
                    connection.set_autocommit(False)
                    try:
                        with self.assertRaises(OperationalError):
                            work()
                        self.assertEqual(tries.call_count, 1)
                    finally:
                        connection.rollback()
                        connection.set_autocommit(True)

    def test_other_errors_of_the_database_are_not_tried_again(self):
        session = self.begin(a=1)
        with mock.patch.object(session, "_locked", side_effect=OperationalError(2006, "gone away")) as tries:
            with self.assertRaises(OperationalError):
                session.save()
        self.assertEqual(tries.call_count, 1)

    def test_a_key_that_nobody_has_made_is_an_error(self):
        session = self.engine.SessionStore("made-up-by-a-stranger-0123456789")
        with self.assertRaises(UpdateError):
            session.save()
        self.assertEqual(Session.objects.count(), 0)

    def test_a_new_session_is_stored_at_once_and_under_a_key_of_its_own(self):
        session = self.engine.SessionStore()
        session["a"] = 1
        session.save()
        self.other(session.session_key, b=1)
        session["c"] = 1
        session.save()
        self.assertEqual(self.row(session.session_key), {"a": 1, "b": 1, "c": 1})
        with self.assertRaises(CreateError):
            session.save(must_create=True)
        with mock.patch.object(
            self.engine.SessionStore, "_get_new_session_key", side_effect=[session.session_key, "z" * 32]
        ):
            another = self.engine.SessionStore()
            another.save()
        self.assertEqual(another.session_key, "z" * 32)

    def test_a_new_key_takes_along_what_others_have_stored(self):
        session = self.begin(a=1)
        old = session.session_key
        self.other(old, b=1)
        session["c"] = 1
        session.cycle_key()
        self.assertNotEqual(session.session_key, old)
        self.assertIsNone(self.row(old))
        self.assertEqual(self.row(session.session_key), {"a": 1, "b": 1, "c": 1})
        self.other(session.session_key, d=1)
        session["e"] = 1
        session.save()
        self.assertEqual(self.row(session.session_key), {"a": 1, "b": 1, "c": 1, "d": 1, "e": 1})
        self.assertEqual(Session.objects.count(), 1)

    def test_a_login_that_has_ended_gets_no_new_key(self):
        session = self.begin(_auth_user_id="1", a=1)
        old = session.session_key
        Session.objects.all().delete()
        with self.assertRaises(SessionInterrupted):
            session.cycle_key()
        self.assertEqual(session.session_key, old)
        self.assertEqual(Session.objects.count(), 0)

    def test_what_an_anonymous_visitor_had_goes_on_under_a_new_key(self):
        session = self.begin(cart=[1])
        Session.objects.all().delete()
        session.cycle_key()
        self.assertEqual(self.row(session.session_key), {"cart": [1]})

    def test_a_new_key_is_given_wholly_or_not_at_all(self):
        session = self.begin(a=1)
        old = session.session_key
        with mock.patch.object(self.engine.SessionStore, "delete", side_effect=Rolled):
            with self.assertRaises(Rolled):
                session.cycle_key()
        self.assertEqual(session.session_key, old)
        self.assertEqual(Session.objects.count(), 1)
        session["b"] = 1
        session.save()
        self.assertEqual(self.row(old), {"a": 1, "b": 1})

    def test_a_flush_deletes_what_others_have_stored_and_nothing_comes_back(self):
        session = self.begin(a=1)
        old = session.session_key
        self.other(old, b=1)
        session.flush()
        self.assertEqual(Session.objects.count(), 0)
        session["c"] = 1
        session.save()
        self.assertNotEqual(session.session_key, old)
        self.assertEqual(self.row(session.session_key), {"c": 1})
        self.assertEqual(Session.objects.count(), 1)

    def test_a_cleared_session_is_empty_whatever_others_have_stored(self):
        for load in [dict, lambda session: None]:
            session = self.engine.SessionStore(self.new(self.engine.SessionStore, a=1))
            load(session)
            self.other(session.session_key, b=1)
            session.clear()
            session["c"] = 1
            session.save()
            self.assertEqual(self.row(session.session_key), {"c": 1})
            self.other(session.session_key, d=1)
            session["e"] = 1
            session.save()
            self.assertEqual(self.row(session.session_key), {"c": 1, "d": 1, "e": 1})

    def test_a_session_that_another_has_cleared_stays_cleared(self):
        session = self.begin(a=1, _auth_user_id="1")
        other = stock_db.SessionStore(session.session_key)
        other.clear()
        other.save()
        session["b"] = 1
        session.save()
        self.assertEqual(self.row(session.session_key), {"b": 1})

    def test_the_keys_of_a_login_change_together(self):
        login = {"_auth_user_id": "1", "_auth_user_backend": "a", "_auth_user_hash": "x"}
        session = self.begin(**login)
        self.other(session.session_key, _auth_user_id="3", _auth_user_backend="b", _auth_user_hash="z")
        session["_auth_user_id"] = "2"
        session["_auth_user_hash"] = "y"
        session.save()
        self.assertEqual(
            self.row(session.session_key), {"_auth_user_id": "2", "_auth_user_backend": "a", "_auth_user_hash": "y"}
        )
        session = self.begin(**login)
        self.other(session.session_key, remove=login)
        session["a"] = 1
        session.save()
        self.assertEqual(self.row(session.session_key), {"a": 1})

    def test_looking_at_the_row_is_no_change_of_what_was_loaded(self):
        session = self.begin(a=1)
        self.other(session.session_key, b=1)
        session.load()
        session["c"] = 1
        session.save()
        self.assertEqual(self.row(session.session_key), {"a": 1, "b": 1, "c": 1})

    def test_a_save_that_was_rolled_back_is_made_again(self):
        session = self.begin(a=1, b=1)
        with self.assertRaises(Rolled), transaction.atomic():
            session["a"] = 2
            session.save()
            session["b"] = 2
            session.save()
            raise Rolled
        self.assertEqual(self.row(session.session_key), {"a": 1, "b": 1})
        self.other(session.session_key, c=1)
        session.save()
        self.assertEqual(self.row(session.session_key), {"a": 2, "b": 2, "c": 1})

    def test_a_savepoint_that_was_rolled_back_takes_its_save_with_it_only(self):
        session = self.begin(a=1)
        with transaction.atomic():
            session["a"] = 2
            session.save()
            with self.assertRaises(Rolled), transaction.atomic():
                session["b"] = 1
                session.save()
                raise Rolled
            self.assertEqual(self.row(session.session_key), {"a": 2})
        self.other(session.session_key, c=1)
        session.save()
        self.assertEqual(self.row(session.session_key), {"a": 2, "b": 1, "c": 1})

    def test_saves_within_one_transaction_see_each_other(self):
        session = self.begin(a=1)
        with transaction.atomic():
            session["a"] = 2
            session.save()
            session["a"] = 1
            session.save()
            self.assertEqual(self.row(session.session_key), {"a": 1})
            session["x"] = 1
            session.save()
            self.other(session.session_key, b=1, x=2)
            session["c"] = 1
            session.save()
        self.assertEqual(self.row(session.session_key), {"a": 1, "b": 1, "c": 1, "x": 2})
        self.other(session.session_key, remove=["x"], a=3)
        session["d"] = 1
        session.save()
        self.assertEqual(self.row(session.session_key), {"a": 3, "b": 1, "c": 1, "d": 1})

    def test_what_a_save_has_merged_that_was_rolled_back_is_not_taken_for_a_change(self):
        session = self.begin(a=1)
        self.other(session.session_key, b=1)
        with self.assertRaises(Rolled), transaction.atomic():
            session["c"] = 1
            session.save()
            raise Rolled
        self.other(session.session_key, b=2)
        session.save()
        self.assertEqual(self.row(session.session_key), {"a": 1, "b": 2, "c": 1})

    def test_a_session_that_was_cleared_before_its_commit_is_still_cleared(self):
        session = self.begin(a=1)
        with transaction.atomic():
            session["b"] = 1
            session.save()
            session.clear()
        self.other(session.session_key, c=1)
        session.save()
        self.assertEqual(self.row(session.session_key), {})

    def test_a_cleared_session_whose_save_was_rolled_back_is_still_cleared(self):
        session = self.begin(a=1)
        with self.assertRaises(Rolled), transaction.atomic():
            session["b"] = 1
            session.save()
            session.clear()
            session.save()
            raise Rolled
        self.assertEqual(self.row(session.session_key), {"a": 1})
        session.save()
        self.assertEqual(self.row(session.session_key), {})

    def test_a_row_that_could_not_be_read_at_first_is_replaced_as_by_django(self):
        key = self.new(self.engine.SessionStore, a=1)
        Session.objects.update(session_data="no text of Django's")
        self.forget(key)
        session = self.engine.SessionStore(key)
        with self.assertLogs("django.security.SuspiciousSession", "WARNING"):
            self.assertEqual(dict(session), {})
        session["b"] = 1
        session.save()
        self.assertEqual(self.row(key), {"b": 1})

    def test_a_row_that_could_not_be_read_at_first_and_can_be_now_is_merged(self):
        key = self.new(self.engine.SessionStore, a=1)
        text = Session.objects.get().session_data
        Session.objects.update(session_data="no text of Django's")
        self.forget(key)
        session = self.engine.SessionStore(key)
        with self.assertLogs("django.security.SuspiciousSession", "WARNING"):
            self.assertEqual(dict(session), {})
            Session.objects.update(session_data=text)
            session["b"] = 1
            session.save()
        self.assertEqual(self.row(key), {"a": 1, "b": 1})

    def test_a_row_that_can_no_longer_be_read_gets_all_of_the_session(self):
        session = self.begin(a=1)
        Session.objects.update(session_data="no text of Django's")
        session["b"] = 1
        with self.assertLogs("django.security.SuspiciousSession", "WARNING"):
            session.save()
        self.assertEqual(self.row(session.session_key), {"a": 1, "b": 1})

    def test_rows_are_those_of_djangos_own_engine(self):
        session = self.begin(a=1)
        self.assertEqual(dict(stock_db.SessionStore(session.session_key)), {"a": 1})
        self.assertEqual(Session.objects.get().get_decoded(), {"a": 1})
        self.assertEqual(session.key_salt, stock_db.SessionStore().key_salt)
        with override_settings(SECRET_KEY="another one, for half a test", SECRET_KEY_FALLBACKS=[]):
            theirs = self.engine.SessionStore(session.session_key)
            self.forget(session.session_key)
            with self.assertLogs("django.security.SuspiciousSession", "WARNING"):
                self.assertEqual(dict(theirs), {})

    def test_an_error_of_the_database_is_not_taken_for_a_session_that_is_gone(self):
        session = self.begin(a=1)
        session["a"] = 2
        cause = Exception("the server has gone away")
        error = OperationalError("the server has gone away")
        error.__cause__ = cause
        with mock.patch.object(Session, "save", side_effect=error), self.assertRaises(OperationalError):
            session.save()
        session.save()
        self.assertEqual(self.row(session.session_key), {"a": 2})

    def test_a_view_keeps_what_was_stored_while_it_ran(self):
        from django.test import Client

        from tests import site

        with override_settings(SESSION_ENGINE=self.engine.__name__):
            client = Client()
            client.get("/touch/?a=1")
            key = client.cookies["sessionid"].value
            site.between.happens = lambda: self.other(key, b=1)
            self.assertEqual(client.get("/touch/?c=1").status_code, 200)
            self.assertEqual(self.row(key), {"a": "1", "b": 1, "c": "1"})
            site.between.happens = Session.objects.all().delete
            with self.assertLogs("django.request", "WARNING"):
                self.assertEqual(client.get("/touch/?d=1").status_code, 400)
            self.assertEqual(Session.objects.count(), 0)

    def test_expired_rows_are_cleared_as_by_django(self):
        self.new(self.engine.SessionStore, a=1)
        Session.objects.update(expire_date=datetime.now(timezone.utc) - timedelta(seconds=1))
        self.new(self.engine.SessionStore, b=1)
        self.engine.SessionStore.clear_expired()
        self.assertEqual(Session.objects.count(), 1)

    def forget(self, key):
        """Takes the session out of the cache."""


class DbTest(Merging, SiteTest):
    engine = db

    def test_an_update_takes_one_query_more_than_djangos_and_on_sqlite_two(self):
        from django.test.utils import CaptureQueriesContext

        session = self.begin(a=1)
        session["b"] = 1
        with CaptureQueriesContext(connection) as queries:
            session.save()
        found = [query["sql"].split()[0] for query in queries if "django_session" in query["sql"]]
        self.assertEqual(found, ["UPDATE", "SELECT", "UPDATE"] if IS_SQLITE else ["SELECT", "UPDATE"])

    def test_a_logout_takes_as_many_queries_as_djangos_and_on_sqlite_one_more(self):
        from django.test.utils import CaptureQueriesContext

        session = self.begin(a=1)
        with CaptureQueriesContext(connection) as queries:
            session.flush()
        found = [query["sql"].split()[0] for query in queries if "django_session" in query["sql"]]
        self.assertEqual(found, ["UPDATE", "SELECT", "DELETE"] if IS_SQLITE else ["SELECT", "DELETE"])


class CachedDbTest(Merging, SiteTest):
    engine = cached_db

    def forget(self, key):
        from django.core.cache import caches

        caches["default"].delete(cached_db.SessionStore.cache_key_prefix + key)


class StockTest(SiteTest):
    """What the engines are for: Django's own lose all this."""

    def test_djangos_own_engines_overwrite_other_writers(self):
        for engine in [stock_db, stock_cached_db]:
            key = self.new(engine.SessionStore, a=1)
            session = engine.SessionStore(key)
            dict(session)
            self.other(key, b=1)
            session["c"] = 1
            session.save()
            self.assertEqual(self.row(key), {"a": 1, "c": 1})


if __name__ == "__main__":
    unittest.main()
