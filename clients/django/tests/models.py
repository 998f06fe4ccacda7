"""A session table of one's own, as Django's documentation has it, and user models that differ from Django's."""

from django.contrib.auth.models import AbstractUser, User
from django.contrib.sessions.base_session import AbstractBaseSession
from django.db import models


class OwnedSession(AbstractBaseSession):
    """A session with a column that Django fills."""

    account = models.CharField(max_length=20, default="")

    @classmethod
    def get_session_store_class(cls):
        from tests.owned import SessionStore

        return SessionStore


class Clerk(AbstractUser):
    """A user model with other names in the database, and a hash of its own."""

    id = models.BigAutoField(primary_key=True, db_column="clerk_id")
    password = models.CharField(max_length=128, db_column="secret_hash")
    is_active = models.BooleanField(default=True, db_column="enabled")
    groups = models.ManyToManyField("auth.Group", related_name="clerks", db_table="clerk_roles")
    user_permissions = models.ManyToManyField("auth.Permission", related_name="clerks")

    class Meta:
        db_table = "clerks"


class Customer(User):
    """A user model with a table beside Django's."""

    number = models.CharField(max_length=20)


class Guest(User):
    """A user model that hashes as it likes."""

    def get_session_auth_hash(self):
        return "guest"

    class Meta:
        proxy = True
