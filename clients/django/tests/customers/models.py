"""User models that have a table beside another one's, and a hash of their own."""

from django.contrib.auth.models import AbstractUser
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
