"""What stands around the engines in the tests: a router, a cache that can be watched and broken, views."""

import threading

from django.contrib.auth import get_user_model, login, logout
from django.core.cache.backends.locmem import LocMemCache
from django.http import HttpResponse
from django.urls import path


class Router:
    """Reads and writes where a test says, in its own thread."""

    here = threading.local()

    def db_for_read(self, model, **hints):
        return getattr(self.here, "read", None)

    def db_for_write(self, model, **hints):
        return getattr(self.here, "write", None)


class Cache(LocMemCache):
    """Writes down for how long sessions are stored, and fails on demand."""

    lifetimes = []
    broken = False

    def fail(self):
        if Cache.broken:
            raise ConnectionError("the key sessionkeythatnobodymayread is too long")

    def get(self, *args, **kwargs):
        self.fail()
        return super().get(*args, **kwargs)

    def set(self, key, value, timeout=None, version=None):
        self.fail()
        if value:
            Cache.lifetimes.append(timeout)
        super().set(key, value, timeout, version=version)

    def add(self, key, value, timeout=None, version=None):
        self.fail()
        added = super().add(key, value, timeout, version=version)
        if added:
            Cache.lifetimes.append(timeout)
        return added

    def delete(self, *args, **kwargs):
        self.fail()
        return super().delete(*args, **kwargs)

    def delete_many(self, *args, **kwargs):
        self.fail()
        super().delete_many(*args, **kwargs)


def touch(request):
    """Sets what the query says; in between happens what a test wants."""
    dict(request.session)
    between.happens()
    for name, value in request.GET.items():
        request.session[name] = value
    return HttpResponse()


def log_in(request):
    """Logs in the first user."""
    login(request, get_user_model().objects.get(pk=1))
    return HttpResponse()


def log_out(request):
    """Logs out."""
    logout(request)
    return HttpResponse()


def user(request):
    """Says who it is, some time after the session was loaded."""
    dict(request.session)
    between.happens()
    return HttpResponse(str(request.user.pk))


class Between:
    """What happens while a view runs."""

    happens = staticmethod(lambda: None)


between = Between()
urlpatterns = [
    path("touch/", touch),
    path("login/", log_in),
    path("logout/", log_out),
    path("user/", user),
    path("accounts/login/", log_in, name="enter"),
]
