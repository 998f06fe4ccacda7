"""A process that counts up in a session: python -m tests.writer KEY NAME COUNT. It begins when its input ends."""

import os
import sys

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

import django

django.setup()

from session_gateway_django.db import SessionStore  # noqa: E402

key, name, count = sys.argv[1:]
sys.stdin.read()
for _ in range(int(count)):
    session = SessionStore(key)
    session[name] = session.get(name, 0) + 1
    session.save()
