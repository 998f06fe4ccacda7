"""Settings of a project whose gateway.toml is printed: those of a new one, with what PROJECT_SETTINGS says in JSON."""

import json
import os

SECRET_KEY = "secret-key-that-is-never-printed"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "/srv/site/db.sqlite3"}}
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "session_gateway_django",
]
SESSION_ENGINE = "session_gateway_django.db"
SECRET_KEY_FALLBACKS = []
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ROOT_URLCONF = "tests.site"

globals().update(json.loads(os.environ.get("PROJECT_SETTINGS", "{}")))
if DATABASES["default"]["ENGINE"].endswith("mysql"):
    import pymysql

    pymysql.version_info = (2, 2, 7, "final", 0)
    pymysql.install_as_MySQLdb()
