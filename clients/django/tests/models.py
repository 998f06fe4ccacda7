"""A session table of one's own, as Django's documentation has it."""

from django.contrib.sessions.base_session import AbstractBaseSession
from django.db import models


class CustomerSession(AbstractBaseSession):
    """A session with a column that Django fills."""

    customer = models.CharField(max_length=20, default="")

    @classmethod
    def get_session_store_class(cls):
        from tests.owned import SessionStore

        return SessionStore
