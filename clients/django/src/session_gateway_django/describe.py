"""What the settings of a site mean for gateway.toml.

No secret is read here but to know whether there is one.
"""

import os
import re
from urllib.parse import quote

import django
from django.apps import apps
from django.conf import settings
from django.core.management.base import CommandError
from django.db import connections, router
from django.shortcuts import resolve_url

from session_gateway_django import cached_db as merging_cached_db
from session_gateway_django import db as merging_db
from session_gateway_django.checks import session_store, writes_json
from session_gateway_django.logins import hash_is_djangos, package_notes, user_notes
from session_gateway_django.values import (
    LOGIN_URL,
    cookie_problem,
    duration,
    literal,
    origin,
    text,
    texts,
    truth,
)

SALT = "django.contrib.sessions.SessionStore"
BACKENDS = ["django.contrib.auth.backends.ModelBackend"]
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}\Z")

ELSEWHERE = {
    "cache": "keeps sessions in a cache, and none in the database",
    "file": "keeps sessions in files, and none in the database",
    "signed_cookies": "keeps sessions in the browsers' cookies: none is in the database, and no logout could count",
}


class Site:
    """The site's settings, as ``[django]`` of the gateway has them.

    ``lines`` are those of the section, ``notes`` what an operator must know or do, ``environment`` what the gateway
    must find in its environment: pairs of a name and what belongs there.
    """

    def __init__(self):
        self.notes = []
        self.environment = []
        self.store = find_store()
        self.model = self.store.get_model_class()
        self.alias = router.db_for_write(self.model)
        self.connection = connections[self.alias]

    def sections(self):
        """The sections ``[django]``, ``[django.user]`` and ``[django.cookie]``: names, each with its lines."""
        yield "django", [*self.database(), *self.secrets(), *self.sessions(), *self.time_zone(), *self.saving()]
        user = self.user()
        if user:
            yield "django.user", user
        yield "django.cookie", self.cookie()
        self.notes += package_notes()

    def note(self, text):
        """Adds a sentence for the operator."""
        self.notes.append(text)

    def database(self):
        """``database``: the file of SQLite, or the environment variable that holds the address with the password."""
        vendor = self.connection.vendor
        if vendor == "sqlite":
            return [f"database = {text('sqlite:' + self.sqlite_file())}"]
        if vendor not in ("postgresql", "mysql"):
            raise CommandError(
                f"DATABASES[{self.alias!r}] is of the kind {vendor!r}. The gateway reads PostgreSQL, MySQL, MariaDB "
                "and SQLite."
            )
        address = self.address("postgres" if vendor == "postgresql" else "mysql")
        self.environment.append(("DATABASE_URL", address))
        return ['database = { env = "DATABASE_URL" }']

    def sqlite_file(self):
        name = str(self.connection.settings_dict["NAME"])
        if name.startswith("file:") or ":memory:" in name or not name or "?" in name:
            raise CommandError(
                f"DATABASES[{self.alias!r}] is a SQLite database in memory or with a URI for its name. The gateway "
                "needs the path of a file."
            )
        return os.path.abspath(name)

    def address(self, scheme):
        """The database's address, with PASSWORD in the password's place."""
        entry = self.connection.settings_dict
        options = entry.get("OPTIONS", {})
        user, password, host, port, name = self.parts(scheme, entry, options)
        query = {}
        if "service" in options or "read_default_file" in options or "passfile" in options:
            self.note(
                "The site reads parts of its database's address from a file (OPTIONS). Fill them in where they are "
                "missing from DATABASE_URL."
            )
        if scheme == "postgres":
            for option in ["sslmode", "sslrootcert", "sslcert", "sslkey", "options"]:
                if option in options:
                    query[option] = str(options[option])
            if "search_path" in query.get("options", ""):
                self.note("A search_path is set: name the schema in the tables below if another client may change it.")
            if "," in host:
                self.note(
                    f"HOST names several servers ({host}), and DATABASE_URL is the address of one: it "
                    "is said with the first. Name the one that takes writes, or an address that leads to it always."
                )
                host, port = host.partition(",")[0], port.partition(",")[0]
            if host.startswith("/") or not host:
                query["host"], host = host or "/var/run/postgresql", "localhost"
        else:
            ssl = options.get("ssl") if isinstance(options.get("ssl"), dict) else {}
            for option in ["ca", "cert", "key"]:
                if ssl.get(option):
                    query["ssl-" + option] = str(ssl[option])
            mode = options.get("ssl_mode")
            if mode:
                query["ssl-mode"] = str(mode)
            elif ssl.get("ca"):
                query["ssl-mode"] = "VERIFY_CA"
            socket = options.get("unix_socket") or (host if host.startswith("/") else "")
            if socket or not host:
                query["socket"], host = str(socket or "/run/mysqld/mysqld.sock"), "localhost"
        if ":" in host:
            host = f"[{host}]"
        login = quote(user, safe="") + (":PASSWORD" if password else "")
        server = host + (f":{port}" if port else "")
        parameters = "&".join(f"{key}={quote(value, safe='/')}" for key, value in query.items())
        address = f"{scheme}://{login + '@' if login else ''}{server}/{quote(name, safe='')}"
        return address + ("?" + parameters if parameters else "")

    def parts(self, scheme, entry, options):
        """What the driver is told: user, password (whether there is one), host, port and name.

        OPTIONS may have them too, in the driver's words. With MySQL they go before Django's own settings, with
        PostgreSQL only the name does.
        """
        words = {"USER": ["user"], "PASSWORD": ["password", "passwd"], "HOST": ["host"], "PORT": ["port"]}
        words["NAME"] = ["dbname"] if scheme == "postgres" else ["database", "db"]
        found = []
        for setting, names in words.items():
            own = entry.get(setting)
            option = next((options[name] for name in names if options.get(name)), None)
            first, second = (option, own) if scheme == "mysql" or setting == "NAME" else (own, option)
            found.append(first or second or "")
        user, password, host, port, name = found
        return str(user), bool(password), str(host), str(port), str(name)

    def secrets(self):
        """``secret_key`` and ``secret_key_fallbacks``, by the names of environment variables."""
        self.environment.append(("DJANGO_SECRET_KEY", "SECRET_KEY"))
        names = []
        for number in range(len(settings.SECRET_KEY_FALLBACKS)):
            names.append(f"DJANGO_SECRET_KEY_FALLBACK_{number + 1}")
            self.environment.append((names[-1], f"SECRET_KEY_FALLBACKS[{number}]"))
        fallbacks = ", ".join(f'{{ env = "{name}" }}' for name in names)
        return ['secret_key = { env = "DJANGO_SECRET_KEY" }', f"secret_key_fallbacks = [{fallbacks}]"]

    def sessions(self):
        """``release``, ``engine``, ``table``, ``salt``, ``verify`` and ``backends``."""
        lines = [f"release = {text('.'.join(map(str, django.VERSION[:2])))}", f"engine = {text(self.engine())}"]
        table = self.name(self.model._meta.db_table, "session table")
        if table != "django_session":
            lines.append(f"table = {text(table)}")
        salt = self.store().key_salt
        if salt != SALT:
            lines.append(f"salt = {text(salt)}")
        lines.append(f"verify = {text(self.verify())}")
        if list(settings.AUTHENTICATION_BACKENDS) != BACKENDS:
            lines.append(f"backends = {texts(settings.AUTHENTICATION_BACKENDS)}")
        own = self.own_columns()
        if own:
            self.note(
                f"The session table has columns of its own ({', '.join(own)}). Those that are NOT NULL and have no "
                "default in the database keep the gateway from creating sessions: docs/django.md."
            )
        return lines

    def own_columns(self):
        known = {"session_key", "session_data", "expire_date"}
        return [field.column for field in self.model._meta.concrete_fields if field.column not in known]

    def engine(self):
        """What of SESSION_ENGINE concerns the gateway: whether Django believes a cache for long."""
        from django.contrib.sessions.backends.cached_db import SessionStore as CachedStore

        if issubclass(self.store, merging_cached_db.SessionStore):
            seconds = merging_cached_db.cache_seconds()
            self.note(
                f"Django reads a session from its cache for up to {seconds} s after it has read the row: that much "
                "later it sees what a service has changed, and a logout by a service. SESSION_GATEWAY_CACHE_SECONDS "
                "says how much."
            )
            return "db"
        if issubclass(self.store, merging_db.SessionStore):
            return "db"
        if issubclass(self.store, CachedStore) or settings.SESSION_ENGINE.endswith(".cached_db"):
            self.note(
                "With this SESSION_ENGINE services can read sessions and not change them. With "
                "'session_gateway_django.db' or 'session_gateway_django.cached_db' they can."
            )
            return "cached_db"
        self.note(
            f"With SESSION_ENGINE = {settings.SESSION_ENGINE!r} a view's save overwrites what a service has stored "
            "since the view loaded the session. With 'session_gateway_django.db' it does not."
        )
        return "db"

    def time_zone(self):
        """``time_zone``, where the database's dates are not in UTC."""
        entry = self.connection.settings_dict.get("TIME_ZONE")
        if not settings.USE_TZ:
            return [f"time_zone = {text(settings.TIME_ZONE)}"]
        if entry and self.connection.vendor != "postgresql":
            return [f"time_zone = {text(entry)}"]
        return []

    def saving(self):
        """``save_every_request`` and ``expire_at_browser_close``."""
        lines = []
        if settings.SESSION_SAVE_EVERY_REQUEST:
            if self.engine_is_read_only():
                self.note(
                    "SESSION_SAVE_EVERY_REQUEST is on, and the gateway cannot extend sessions with this engine: "
                    "visitors of services only are logged out after SESSION_COOKIE_AGE."
                )
            else:
                lines.append("save_every_request = true")
        if settings.SESSION_EXPIRE_AT_BROWSER_CLOSE:
            lines.append("expire_at_browser_close = true")
        return lines

    def engine_is_read_only(self):
        from django.contrib.sessions.backends.cached_db import SessionStore as CachedStore

        return issubclass(self.store, CachedStore) or (
            settings.SESSION_ENGINE.endswith(".cached_db") and not issubclass(self.store, merging_db.SessionStore)
        )

    def user_model(self):
        """The user model; None for a site without logins."""
        if not apps.is_installed("django.contrib.auth"):
            return None
        from django.contrib.auth import get_user_model

        return get_user_model()

    def verify(self):
        """``verify``: what of a login can be checked in the user table."""
        model = self.user_model()
        if model is None:
            self.note("There are no logins here: nobody is looked up in a user table.")
            return "off"
        if router.db_for_write(model) != self.alias:
            self.note(
                "Users are in another database than sessions, and the gateway reads one: a user who was deactivated or "
                "deleted stays logged in for services until the session ends."
            )
            return "off"
        self.notes += user_notes(model)
        if hash_is_djangos(model) and password_field(model):
            return "user"
        self.note(
            "The user model makes the session's hash in a way of its own, or has no password: the gateway cannot "
            "compare the hash, so a new password does not end other sessions here."
        )
        return "active-only"

    def user(self):
        """``[django.user]``, where it is not Django's own."""
        model = self.user_model()
        if model is None or router.db_for_write(model) != self.alias:
            return []
        # With a model that inherits another one's table the password stands there, and both have the same key.
        field = password_field(model)
        owner = field.model if field else model
        table = self.name(owner._meta.db_table, "user table")
        key, password = owner._meta.pk.column, field.column if field else "password"
        lines = []
        if table != "auth_user":
            lines.append(f"table = {text(table)}")
        if key != "id":
            lines.append(f"key = {text(self.column(key))}")
        if password != "password":  # noqa: S105 (the name of a column)
            lines.append(f"password = {text(self.column(password))}")
        lines += self.condition(model, owner)
        lines += self.groups(model, table)
        return lines

    def condition(self, model, owner):
        active = next((field for field in model._meta.concrete_fields if field.name == "is_active"), None)
        if active is None:
            if not isinstance(getattr(model, "is_active", True), bool):
                self.note("is_active of the user model is no column: say with [django.user] where who is active.")
            return []
        if active.model is not owner:
            self.note(
                "is_active stands in another table than the password: say with [django.user] where who is active."
            )
            return []
        if active.column == "is_active":
            return []
        mark = "`" if self.connection.vendor == "mysql" else '"'
        if self.connection.vendor == "sqlite":
            mark = "`"
        return [f"where = {literal(mark + self.column(active.column) + mark)}"]

    def groups(self, model, table):
        from django.contrib.auth.models import Group

        field = next((field for field in model._meta.many_to_many if field.name == "groups"), None)
        if field is None or not issubclass(field.remote_field.model, Group):
            return []
        members = self.name(field.remote_field.through._meta.db_table, "table of memberships")
        groups = self.name(field.remote_field.model._meta.db_table, "table of groups")
        if (members, groups) == (f"{table}_groups", "auth_group"):
            return []
        return [f"groups = {texts([members, groups])}"]

    def cookie(self):
        """``[django.cookie]``."""
        name, domain = settings.SESSION_COOKIE_NAME, settings.SESSION_COOKIE_DOMAIN
        age, path = int(self.store().get_session_cookie_age()), settings.SESSION_COOKIE_PATH or "/"
        secure = bool(settings.SESSION_COOKIE_SECURE)
        samesite = settings.SESSION_COOKIE_SAMESITE
        samesite = samesite.title() if samesite else "omit"
        problem = cookie_problem(name, age, domain, path, secure, samesite)
        if problem:
            raise CommandError(problem)
        lines = [
            f"name = {text(name)}",
            f"age = {text(duration(age))}",
            f"path = {text(path)}",
            f"secure = {truth(secure)}",
            f"httponly = {truth(settings.SESSION_COOKIE_HTTPONLY)}",
            f"samesite = {text(samesite)}",
        ]
        if domain:
            lines.insert(1, f"domain = {text(domain)}")
        return lines

    def trusted_origins(self):
        """CSRF_TRUSTED_ORIGINS, as far as the gateway has them."""
        found = []
        for given in settings.CSRF_TRUSTED_ORIGINS:
            known = origin(given.rstrip("/"))
            if "*" in given:
                self.note(f"CSRF_TRUSTED_ORIGINS has {given}: name each of these origins in trusted_origins.")
            elif known is None:
                self.note(f"CSRF_TRUSTED_ORIGINS has {given}, which is no origin (https://HOST): it is left out.")
            elif known not in found:
                found.append(known)
        return found

    def login_url(self):
        """LOGIN_URL as a path or https URL; None where it cannot be one."""
        try:
            url = resolve_url(settings.LOGIN_URL)
        except Exception:  # noqa: BLE001 (whatever the site's own code raises)
            url = ""
        if LOGIN_URL.match(url):
            return url
        self.note(
            "LOGIN_URL is no plain path and no https URL without a query: say login_url on the routes by hand. "
            "Without it that is /accounts/login/."
        )
        return None

    def hosts(self):
        """The hosts of ALLOWED_HOSTS that are names, without patterns."""
        return [host for host in settings.ALLOWED_HOSTS if re.match(r"[A-Za-z0-9][A-Za-z0-9.-]*\Z", host)]

    def name(self, table, what):
        """A table's name as the gateway takes it: ``name``, or ``schema.name``."""
        parts = table.strip('"').split('"."')
        if len(parts) <= 2 and all(NAME.match(part) for part in parts):
            return ".".join(parts)
        raise CommandError(f"The {what} is named {table!r}. The gateway takes letters, digits and _.")

    def column(self, column):
        if NAME.match(column):
            return column
        raise CommandError(f"The user table has a column {column!r}. The gateway takes letters, digits and _.")


def find_store():
    """The class of SESSION_ENGINE, if it keeps sessions where the gateway can read them."""
    from django.contrib.sessions.backends.base import SessionBase
    from django.contrib.sessions.backends.db import SessionStore as RowStore

    advice = (
        "Set SESSION_ENGINE to 'session_gateway_django.db' or 'session_gateway_django.cached_db'. With that present "
        "sessions end: everybody logs in once more."
    )
    engine = settings.SESSION_ENGINE
    store = session_store()
    if store is None:
        raise CommandError(f"SESSION_ENGINE is {engine!r}, which cannot be imported or has no SessionStore.")
    if not issubclass(store, RowStore):
        why = ELSEWHERE.get(engine.rpartition(".")[2], "does not keep sessions as django.contrib.sessions.backends.db")
        raise CommandError(f"SESSION_ENGINE is {engine!r}: it {why}. {advice}")
    if store.encode is not SessionBase.encode or store.decode is not SessionBase.decode:
        raise CommandError(f"SESSION_ENGINE is {engine!r}, which encodes sessions in a way of its own. {advice}")
    if not writes_json(settings.SESSION_SERIALIZER):
        raise CommandError(
            f"SESSION_SERIALIZER is {settings.SESSION_SERIALIZER!r}, which does not write JSON. Nothing else is "
            "supported: a pickle, for one, is a program. Use 'django.contrib.sessions.serializers.JSONSerializer'."
        )
    return store


def password_field(model):
    """The field of the password, in whatever table; None without one."""
    return next((field for field in model._meta.concrete_fields if field.name == "password"), None)
