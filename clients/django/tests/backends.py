"""Backends and middleware of a site that asks more of a login than Django does."""

from django.contrib.auth.backends import AllowAllUsersModelBackend, BaseBackend, ModelBackend
from django.contrib.auth.middleware import AuthenticationMiddleware, RemoteUserMiddleware
from django.contrib.sessions.middleware import SessionMiddleware


class Selects(ModelBackend):
    """Asks whom it gives."""

    def get_user(self, user_id):
        return None


class Admits(ModelBackend):
    """Asks who may log in."""

    def user_can_authenticate(self, user):
        return False


class AdmitsAll(AllowAllUsersModelBackend):
    """Is not known by its name."""


class Permissions(BaseBackend):
    """Knows permissions, and nobody who logs in."""


class Addresses(ModelBackend):
    """Finds users by their addresses, and that is all."""

    def authenticate(self, request, **credentials):
        return None


class Hosts(SessionMiddleware):
    """Another cookie for each host."""


class Proxies(AuthenticationMiddleware):
    """Another user."""


class Headers(RemoteUserMiddleware):
    """Another header."""


class Remembers(RemoteUserMiddleware):
    """Asks for its header at the login only."""

    force_logout_if_no_header = False
