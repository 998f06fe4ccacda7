"""System checks: what `manage.py check` says of the settings."""

from importlib import import_module

import django
from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, router


def session_store():
    """The class of SESSION_ENGINE; None if there is none, of which Django itself complains."""
    try:
        return import_module(settings.SESSION_ENGINE).SessionStore
    except (ImportError, AttributeError):
        return None


@checks.register("session_gateway")
def check_engine(app_configs, **kwargs):
    """Says where the installed app does nothing, and where a cache would be believed for too long."""
    from session_gateway_django import cached_db, db

    store = session_store()
    if store is None:
        return []
    if not issubclass(store, db.SessionStore):
        engine = "cached_db" if "cached" in settings.SESSION_ENGINE else "db"
        return [
            checks.Warning(
                f"SESSION_ENGINE is {settings.SESSION_ENGINE!r}: a save overwrites what services have stored since "
                "the session was loaded.",
                hint=f"Set SESSION_ENGINE = 'session_gateway_django.{engine}', or silence this check where nothing "
                "but Django writes sessions.",
                id="session_gateway_django.W001",
            )
        ]
    found = []
    if issubclass(store, cached_db.SessionStore):
        try:
            cached_db.cache_seconds()
        except ImproperlyConfigured as error:
            found.append(checks.Error(str(error), id="session_gateway_django.E001"))
    return found


@checks.register("session_gateway")
def check_serializer(app_configs, **kwargs):
    """The gateway reads JSON and nothing else."""
    if writes_json(settings.SESSION_SERIALIZER):
        return []
    return [
        checks.Warning(
            f"SESSION_SERIALIZER is {settings.SESSION_SERIALIZER!r}, which does not write JSON: the gateway cannot "
            "read these sessions.",
            hint="Use 'django.contrib.sessions.serializers.JSONSerializer'. Present sessions end with that.",
            id="session_gateway_django.W002",
        )
    ]


@checks.register("session_gateway")
def check_sqlite(app_configs, **kwargs):
    """A deferred transaction of SQLite that has read fails when it writes after somebody else."""
    store = session_store()
    if store is None or not hasattr(store, "get_model_class") or django.VERSION < (5, 1):
        return []
    try:
        alias = router.db_for_write(store.get_model_class())
    except Exception:  # noqa: BLE001 (the model is not installed, of which Django complains)
        return []
    connection = connections[alias]
    mode = connection.settings_dict.get("OPTIONS", {}).get("transaction_mode") or ""
    if connection.vendor != "sqlite" or mode.upper() in ("IMMEDIATE", "EXCLUSIVE"):
        return []
    return [
        checks.Warning(
            f"DATABASES[{alias!r}] is SQLite and begins its transactions without the write lock: a view that has "
            "read in a transaction, and then writes after somebody else has, fails with 'database is locked'.",
            hint="Set OPTIONS = {'transaction_mode': 'IMMEDIATE'}.",
            id="session_gateway_django.W003",
        )
    ]


def writes_json(serializer):
    """Whether the serializer of this path writes JSON."""
    import json

    from django.utils.module_loading import import_string

    sample = {"a": [1, "\u00e9", None, {"b": True}]}
    try:
        return json.loads(import_string(serializer)().dumps(sample).decode("latin-1")) == sample
    except Exception:  # noqa: BLE001 (a serializer may raise anything)
        return False
