"""A session engine that writes down what each save had loaded and what it stored, for tests of histories.

Its class is named as Django's own, so its rows are Django's. A line of HISTORY_FILE is a JSON object: key,
start and end of the save in seconds, loaded and saved members that are numbers, and whether it succeeded.
"""

import json
import threading
import time

from django.conf import settings
from django.contrib.sessions.backends import db

lock = threading.Lock()


def numbers(session):
    """The members that the test counts with."""
    return {name: value for name, value in session.items() if type(value) is int}


class SessionStore(db.SessionStore):
    loaded = {}

    def load(self):
        session = super().load()
        self.loaded = numbers(session)
        return session

    def save(self, must_create=False):
        line = {"loaded": self.loaded, "start": time.time(), "ok": False}
        try:
            super().save(must_create)
            line["ok"] = True
        finally:
            line |= {"key": self.session_key, "end": time.time(), "saved": numbers(self._session)}
            with lock, open(settings.HISTORY_FILE, "a") as file:
                file.write(json.dumps(line) + "\n")
