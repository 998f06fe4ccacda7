"""Settings of the tests. SITE_DATABASE is the address of an empty database, as in tests/django; without it there is
a SQLite file of the process's own."""

import os
import tempfile
from urllib.parse import unquote, urlsplit

folder = tempfile.TemporaryDirectory(prefix="session-gateway-django")


def database(url):
    """A DATABASES entry for `url`."""
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": parts.path, "OPTIONS": {"timeout": 20}}
    entry = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.path.lstrip("/"),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname,
        "PORT": parts.port,
        "OPTIONS": {},
    }
    if parts.scheme == "mysql":
        import pymysql

        entry["ENGINE"] = "django.db.backends.mysql"
        # Django asks for mysqlclient, which is no wheel; PyMySQL does the same without a compiler.
        pymysql.version_info = (2, 2, 7, "final", 0)
        pymysql.install_as_MySQLdb()
    return entry


url = os.environ.setdefault("SITE_DATABASE", f"sqlite:{folder.name}/site.sqlite3")
DATABASES = {"default": database(url), "repeatable": database(url)}
if url.startswith("mysql"):
    DATABASES["repeatable"]["OPTIONS"]["isolation_level"] = "repeatable read"
elif url.startswith("postgres"):
    from django.db.backends.postgresql.psycopg_any import IsolationLevel

    DATABASES["repeatable"]["OPTIONS"]["isolation_level"] = IsolationLevel.REPEATABLE_READ
DATABASE_ROUTERS = ["tests.site.Router"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "session_gateway_django",
    "tests",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
CACHES = {"default": {"BACKEND": "tests.site.Cache"}}
SESSION_ENGINE = "session_gateway_django.db"
SECRET_KEY = "the secret key of these tests, which is long enough"
ROOT_URLCONF = "tests.site"
ALLOWED_HOSTS = ["shop.example", "testserver"]
USE_TZ = True
LOGGING_CONFIG = None

# Tables are made from the models as they are: those of these tests have no migrations.
MIGRATION_MODULES = dict.fromkeys(["auth", "contenttypes", "sessions"])
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
