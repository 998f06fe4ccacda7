"""A user model under names of its own."""

from django.contrib.auth.models import AbstractUser
from django.db import models


class Clerk(AbstractUser):
    """All columns that the gateway reads have other names than Django's."""

    id = models.BigAutoField(primary_key=True, db_column="clerk_id")
    password = models.CharField(max_length=128, db_column="secret_hash")
    is_active = models.BooleanField(default=True, db_column="enabled")
    groups = models.ManyToManyField("auth.Group", related_name="clerks", db_table="clerk_roles")
    user_permissions = models.ManyToManyField("auth.Permission", related_name="clerks")

    class Meta:
        db_table = "clerks"
