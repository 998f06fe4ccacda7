"""User models of one's own, for AUTH_USER_MODEL."""

import uuid

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.models import AbstractUser
from django.db import models


class MemberManager(BaseUserManager):
    """What `create_user` needs."""

    def create_user(self, name, password):
        """Stores a user and gives it."""
        user = self.model(name=name)
        user.set_password(password)
        user.save()
        return user


class Member(AbstractBaseUser):
    """As little as a user can have: a key that is no number, and no column is_active."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    name = models.CharField(max_length=150, unique=True)
    born = models.DateField(null=True)
    balance = models.DecimalField(max_digits=12, decimal_places=2, null=True)

    objects = MemberManager()
    USERNAME_FIELD = "name"


class Clerk(AbstractUser):
    """All that a user can have, under names that SQL needs quotes for."""

    id = models.BigAutoField(primary_key=True)
    rank = models.SmallIntegerField(null=True, db_column="Order")

    class Meta:
        db_table = "Clerk"
