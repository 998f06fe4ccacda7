"""User models that have a table beside another one's, and a hash of their own."""

from django.contrib.auth.models import AbstractUser, UserManager
from django.db import models


class Person(AbstractUser):
    """A user model with a table of its own."""


class Customer(Person):
    """A user model whose password stands in the table of another."""

    number = models.CharField(max_length=20)


class Guest(AbstractUser):
    """A user model that hashes as it likes."""

    def get_session_auth_hash(self):
        return "guest"


class Salted(AbstractUser):
    """A user model that mixes something into the hash."""

    def _get_session_auth_hash(self, secret=None):
        return "salted"


class Present(UserManager):
    """Leaves out whom somebody has deleted."""

    def get_queryset(self):
        return super().get_queryset().filter(deleted=False)


class Member(AbstractUser):
    """A user model that keeps whom somebody has deleted."""

    deleted = models.BooleanField(default=False)
    objects = Present()


class Retiree(AbstractUser):
    """A user model that has all, and another hash for old keys."""

    class Plain(UserManager):
        """Has more methods, and no less users."""

        def oldest(self):
            return self.first()

    objects = Plain()

    def get_session_auth_fallback_hash(self):
        return []
