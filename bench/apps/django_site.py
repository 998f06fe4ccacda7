"""A Django site with sessions and users and nothing else; what bench/run compares with. WSGI."""

import os
import secrets

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, JsonResponse
from django.urls import path

settings.configure(
    SECRET_KEY=os.environ["BENCH_SECRET_KEY"],
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": "127.0.0.1",
            "PORT": os.environ["BENCH_DATABASE_PORT"],
            "NAME": "postgres",
            "USER": "postgres",
            "PASSWORD": os.environ["BENCH_DATABASE_PASSWORD"],
            "CONN_MAX_AGE": None,
        }
    },
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    USE_I18N=False,
    USE_TZ=True,
)


def auth(request):
    """What nginx's auth_request asks: who it is."""
    if not request.user.is_authenticated:
        return HttpResponse(status=401)
    return HttpResponse(headers={"X-User": f"{request.user.pk} {request.user.get_username()}"})


def write(request):
    """Changes one name of the session, as the service behind the gateway does."""
    request.session["seen"] = secrets.token_hex(16)
    return JsonResponse({"ok": True})


def echo(request):
    """The session, to check it."""
    return JsonResponse({"session": dict(request.session.items())})


urlpatterns = [path("auth", auth), path("write", write), path("echo", echo)]
application = get_wsgi_application()
