"""A small Django site. SESSION_ENGINE is all that has to do with the gateway.

Its folder, with the database and the keys, comes from the environment: examples/shop/run makes it.
"""

import os
from pathlib import Path

FOLDER = Path(os.environ["SHOP_FOLDER"])
PAGES = Path(__file__).resolve().parents[2] / "pages"

SECRET_KEY = (FOLDER / "keys" / "django").read_text()
DEBUG = True  # An example on the reader's own machine: Django serves its static files, and shows errors.
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": FOLDER / "db.sqlite3",
        # The gateway writes this file too: begin with the lock, and wait for it.
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "session_gateway_django",
    "shop",
]
# Django's own engine, django.contrib.sessions.backends.db, would do. This one saves what a view has changed and leaves
# the rest as it is, where the other overwrites what a service has stored meanwhile.
SESSION_ENGINE = "session_gateway_django.db"
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "shop.urls"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [PAGES],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
            ]
        },
    }
]
STATIC_URL = "/static/"
STATICFILES_DIRS = [PAGES / "static"]
LOGIN_REDIRECT_URL = "/"
