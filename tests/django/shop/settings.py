"""Settings of the test site. All that varies comes from the environment:

SITE_DATABASE    sqlite:/path/to/file, or postgres:// or mysql:// with user:password@host:port/name
SITE_SECRET_KEY  SECRET_KEY
SITE_SETTINGS    a JSON object of further settings, such as SESSION_COOKIE_AGE, and ATOMIC_REQUESTS of the database
                 and its TIME_ZONE, as DATABASE_TIME_ZONE
"""

import json
import os
from urllib.parse import unquote, urlsplit

import pymysql


def database(url):
    """A DATABASES entry for `url`."""
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        # As a busy site on SQLite would have it: a writer waits, it does not fail.
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": parts.path, "OPTIONS": {"timeout": 20}}
    entry = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.path.lstrip("/"),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname,
        "PORT": parts.port,
    }
    if parts.scheme == "mysql":
        entry["ENGINE"] = "django.db.backends.mysql"
        # Django asks for mysqlclient, which is no wheel; PyMySQL does the same without a compiler.
        pymysql.version_info = (2, 2, 7, "final", 0)
        pymysql.install_as_MySQLdb()
    return entry


SECRET_KEY = os.environ["SITE_SECRET_KEY"]
DATABASES = {"default": database(os.environ["SITE_DATABASE"])}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "shop",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
# The default keeps messages in a cookie of their own until they do not fit in there.
MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"
ROOT_URLCONF = "shop.urls"
ALLOWED_HOSTS = ["*"]
USE_TZ = True
LOGGING_CONFIG = None

globals().update(json.loads(os.environ.get("SITE_SETTINGS", "{}")))
DATABASES["default"]["ATOMIC_REQUESTS"] = globals().pop("ATOMIC_REQUESTS", False)
DATABASES["default"]["TIME_ZONE"] = globals().pop("DATABASE_TIME_ZONE", None)
