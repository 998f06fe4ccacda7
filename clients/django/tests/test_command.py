"""What manage.py session_gateway_config prints, and what the system checks say.

With SESSION_GATEWAY, the path of the program, each configuration is checked by the gateway itself.
"""

import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import django

GATEWAY = os.environ.get("SESSION_GATEWAY")
PASSWORD = "p@ss/word-that-is-never-printed"
SERVER = {
    "NAME": "shop",
    "USER": "django",
    "PASSWORD": PASSWORD,
    "HOST": "db.example",
    "PORT": "5433",
}
POSTGRES = {**SERVER, "ENGINE": "django.db.backends.postgresql"}
MYSQL = {**SERVER, "ENGINE": "django.db.backends.mysql"}
TESTS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "session_gateway_django",
    "tests",
]


class ProjectTest(unittest.TestCase):
    def django(self, *arguments, **settings):
        """Runs a command of Django in a project with these settings."""
        environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.project",
            "PROJECT_SETTINGS": json.dumps(settings),
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        command = [sys.executable, "-m", "django", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


class CommandTest(ProjectTest):
    def print(self, *arguments, **settings):
        """The configuration, and what is said beside it. The gateway accepts it, and no secret is in either."""
        done = self.django("session_gateway_config", *arguments, **settings)
        self.assertEqual(done.returncode, 0, done.stderr)
        for secret in ["never-printed", "p%40ss"]:
            self.assertNotIn(secret, done.stdout + done.stderr)
        self.check(done.stdout)
        return done.stdout, done.stderr

    def check(self, toml):
        if GATEWAY is None:
            return
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "gateway.toml")
            file.write_text(toml, encoding="utf-8")
            command = [GATEWAY, "check", "--config", str(file), "--without-secrets"]
            checked = subprocess.run(command, capture_output=True, text=True, timeout=60)
            self.assertEqual(checked.returncode, 0, checked.stdout + toml)
            expected = ("read from the environment once", "takes the place of is_active", 'with verify = "off"')
            for line in checked.stdout.splitlines():
                self.assertTrue("remark:" in line and any(words in line for words in expected), line)

    def refused(self, *arguments, **settings):
        """The sentence with which the command ends."""
        done = self.django("session_gateway_config", *arguments, **settings)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertNotIn("Traceback", done.stderr)
        self.assertNotIn("never-printed", done.stderr)
        return done.stderr

    def test_a_new_project_gets_a_configuration_that_the_gateway_accepts(self):
        toml, said = self.print()
        for line in [
            'database = "sqlite:/srv/site/db.sqlite3"',
            'secret_key = { env = "DJANGO_SECRET_KEY" }',
            "secret_key_fallbacks = []",
            'release = "%d.%d"' % django.VERSION[:2],
            'engine = "db"',
            'verify = "user"',
            'name = "sessionid"',
            'age = "14d"',
            "secure = false",
            'samesite = "Lax"',
            'issuer = "session-gateway"',
            'login_url = "/accounts/login/"',
            "[upstream.service]",
            'path = "/service/"',
        ]:
            self.assertIn("\n" + line, toml)
        for absent in [
            "time_zone",
            "[django.user]",
            "\ntable",
            "salt",
            "backends",
            "save_every_request",
            "domain",
            "trusted_origins",
        ]:
            self.assertNotIn(absent, toml)
        self.assertIn("DJANGO_SECRET_KEY = SECRET_KEY", said)
        self.assertIn("session-gateway key new --upstream service --kid service-1 --out secrets/service_key\n", said)

    def test_the_address_of_a_server_is_said_without_its_password(self):
        toml, said = self.print(DATABASES={"default": POSTGRES})
        self.assertIn('database = { env = "DATABASE_URL" }', toml)
        self.assertIn("DATABASE_URL = postgres://django:PASSWORD@db.example:5433/shop\n", said)
        options = {"OPTIONS": {"sslmode": "verify-full", "sslrootcert": "/etc/ca.pem"}}
        _, said = self.print(DATABASES={"default": {**POSTGRES, **options, "USER": "a b@c"}})
        self.assertIn(
            "postgres://a%20b%40c:PASSWORD@db.example:5433/shop?sslmode=verify-full&sslrootcert=/etc/ca.pem\n", said
        )
        _, said = self.print(DATABASES={"default": {**POSTGRES, "HOST": "", "PORT": "", "PASSWORD": ""}})
        self.assertIn("postgres://django@localhost/shop?host=/var/run/postgresql\n", said)
        _, said = self.print(DATABASES={"default": {**POSTGRES, "HOST": "::1"}})
        self.assertIn("@[::1]:5433/", said)
        _, said = self.print(DATABASES={"default": {**MYSQL, "PORT": ""}})
        self.assertIn("DATABASE_URL = mysql://django:PASSWORD@db.example/shop\n", said)
        _, said = self.print(DATABASES={"default": {**MYSQL, "HOST": "/run/my.sock", "PORT": ""}})
        self.assertIn("mysql://django:PASSWORD@localhost/shop?socket=/run/my.sock\n", said)
        _, said = self.print(DATABASES={"default": {**MYSQL, "OPTIONS": {"ssl": {"ca": "/etc/ca.pem"}}}})
        self.assertIn("?ssl-ca=/etc/ca.pem&ssl-mode=VERIFY_CA\n", said)

    def test_fallback_keys_are_named_each(self):
        toml, said = self.print(SECRET_KEY_FALLBACKS=["one-never-printed", "two-never-printed"])
        names = ["DJANGO_SECRET_KEY_FALLBACK_1", "DJANGO_SECRET_KEY_FALLBACK_2"]
        self.assertIn("[" + ", ".join(f'{{ env = "{name}" }}' for name in names) + "]", toml)
        self.assertIn(f"{names[1]} = SECRET_KEY_FALLBACKS[1]", said)

    def test_the_cookie_is_as_the_settings_have_it(self):
        toml, _ = self.print(
            SESSION_COOKIE_NAME="shop",
            SESSION_COOKIE_AGE=5400,
            SESSION_COOKIE_DOMAIN=".shop.example",
            SESSION_COOKIE_PATH="/a",
            SESSION_COOKIE_SECURE=True,
            SESSION_COOKIE_HTTPONLY=False,
            SESSION_COOKIE_SAMESITE="none",
        )
        cookie = toml[toml.index("[django.cookie]") : toml.index("[upstream")]
        self.assertEqual(
            cookie.split("\n")[1:8],
            [
                'name = "shop"',
                'domain = ".shop.example"',
                'age = "90m"',
                'path = "/a"',
                "secure = true",
                "httponly = false",
                'samesite = "None"',
            ],
        )
        for value in [False, None]:
            self.assertIn('samesite = "omit"', self.print(SESSION_COOKIE_SAMESITE=value)[0])

    def test_the_time_zone_is_said_where_dates_have_none(self):
        sqlite = {"ENGINE": "django.db.backends.sqlite3", "NAME": "/srv/db"}
        line = '\ntime_zone = "Europe/Berlin"\n'
        for settings, expected in [
            ({"USE_TZ": False, "TIME_ZONE": "Europe/Berlin"}, True),
            ({"USE_TZ": True, "TIME_ZONE": "Europe/Berlin"}, False),
            ({"USE_TZ": True, "DATABASES": {"default": {**sqlite, "TIME_ZONE": "Europe/Berlin"}}}, True),
            ({"USE_TZ": True, "DATABASES": {"default": {**MYSQL, "TIME_ZONE": "Europe/Berlin"}}}, True),
            ({"USE_TZ": True, "DATABASES": {"default": {**POSTGRES, "TIME_ZONE": "Europe/Berlin"}}}, False),
            ({"USE_TZ": False, "TIME_ZONE": "Europe/Berlin", "DATABASES": {"default": POSTGRES}}, True),
        ]:
            self.assertEqual(line in self.print(**settings)[0], expected, settings)

    def test_saving_at_each_request_and_ending_with_the_browser_are_said(self):
        settings = {"SESSION_SAVE_EVERY_REQUEST": True, "SESSION_EXPIRE_AT_BROWSER_CLOSE": True}
        toml, _ = self.print(**settings)
        self.assertIn("\nsave_every_request = true\nexpire_at_browser_close = true\n", toml)
        toml, _ = self.print(SESSION_ENGINE="django.contrib.sessions.backends.cached_db", **settings)
        self.assertNotIn("\nsave_every_request", toml)
        self.assertIn("# SESSION_SAVE_EVERY_REQUEST is on, and the gateway cannot extend", toml)

    def test_each_engine_that_keeps_rows_is_told_as_the_gateway_knows_it(self):
        for engine, name, note in [
            ("session_gateway_django.db", "db", None),
            ("session_gateway_django.cached_db", "db", "for up to 5 s"),
            ("django.contrib.sessions.backends.db", "db", "'session_gateway_django.db' it does not"),
            ("django.contrib.sessions.backends.cached_db", "cached_db", "can read sessions and not change them"),
        ]:
            toml, _ = self.print(SESSION_ENGINE=engine)
            self.assertIn(f'\nengine = "{name}"\n', toml)
            self.assertIn(note or "", toml)
            self.assertEqual("writable" in toml, name == "db")
        toml, _ = self.print(SESSION_ENGINE="tests.owned", INSTALLED_APPS=TESTS)
        self.assertIn('\ntable = "tests_customersession"\n', toml)
        self.assertIn("columns of its own (customer)", toml)
        self.assertNotIn("salt", toml)

    def test_engines_without_rows_and_serializers_without_json_are_refused_with_what_to_do(self):
        for name in ["cache", "file", "signed_cookies"]:
            said = self.refused(SESSION_ENGINE=f"django.contrib.sessions.backends.{name}")
            self.assertIn("Set SESSION_ENGINE to 'session_gateway_django.db'", said)
        self.assertIn("cannot be imported", self.refused(SESSION_ENGINE="no.such.engine"))
        self.assertIn("JSONSerializer", self.refused(SESSION_SERIALIZER="tests.test_command.NoJson"))
        self.assertIn(
            "memory", self.refused(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}})
        )

    def test_user_models_of_ones_own_are_told_by_their_tables_and_columns(self):
        toml, _ = self.print(INSTALLED_APPS=[*TESTS, "tests.clerks"], AUTH_USER_MODEL="clerks.Clerk")
        user = toml[toml.index("[django.user]") : toml.index("[django.cookie]")]
        self.assertEqual(
            user.strip().split("\n")[1:],
            [
                'table = "clerks"',
                'key = "clerk_id"',
                'password = "secret_hash"',
                "where = '`enabled`'",
                'groups = ["clerk_roles", "auth_group"]',
            ],
        )
        toml, _ = self.print(INSTALLED_APPS=[*TESTS, "tests.customers"], AUTH_USER_MODEL="customers.Customer")
        self.assertIn('[django.user]\ntable = "customers_person"\n\n', toml)
        toml, _ = self.print(INSTALLED_APPS=[*TESTS, "tests.customers"], AUTH_USER_MODEL="customers.Guest")
        self.assertIn('verify = "active-only"', toml)
        toml, _ = self.print(INSTALLED_APPS=["django.contrib.sessions", "session_gateway_django"])
        self.assertIn('verify = "off"', toml)
        toml, _ = self.print(
            DATABASES={"default": POSTGRES, "users": MYSQL}, DATABASE_ROUTERS=["tests.test_command.UsersElsewhere"]
        )
        self.assertIn('verify = "off"', toml)
        self.assertIn("# Users are in another database", toml)

    def test_backends_origins_and_the_login_page_are_told(self):
        backends = ["django.contrib.auth.backends.ModelBackend", "shop.backends.Tokens"]
        toml, _ = self.print(
            AUTHENTICATION_BACKENDS=backends,
            CSRF_TRUSTED_ORIGINS=["https://app.example", "https://*.shop.example", "http://localhost:3000"],
            LOGIN_URL="enter",
            ALLOWED_HOSTS=["shop.example", ".shop.example", "*"],
            SECURE_PROXY_SSL_HEADER=["HTTP_X_FORWARDED_PROTO", "https"],
        )
        self.assertIn('backends = ["django.contrib.auth.backends.ModelBackend", "shop.backends.Tokens"]', toml)
        self.assertIn('trusted_origins = ["https://app.example", "http://localhost:3000"]', toml)
        self.assertIn("# CSRF_TRUSTED_ORIGINS has https://*.shop.example:", toml)
        self.assertIn('login_url = "/accounts/login/"', toml)
        self.assertIn('issuer = "https://shop.example"', toml)
        self.assertIn("# SECURE_PROXY_SSL_HEADER is set", toml)
        self.assertNotIn("trusted_fields", toml)
        toml, _ = self.print(SECURE_PROXY_SSL_HEADER=["HTTP_X_FORWARDED_SSL", "on"], USE_X_FORWARDED_PORT=True)
        self.assertIn("# Set SECURE_PROXY_SSL_HEADER to ('HTTP_X_FORWARDED_PROTO', 'https')", toml)
        self.assertIn("# USE_X_FORWARDED_PORT: the gateway removes X-Forwarded-Port", toml)
        toml, _ = self.print(LOGIN_URL="https://login.example/in/")
        self.assertIn('login_url = "https://login.example/in/"', toml)
        toml, _ = self.print(LOGIN_URL="/in/?a=b")
        self.assertNotIn("login_url =", toml)

    def notes(self, *arguments, **settings):
        """The comments at the top of the file."""
        lines = self.print(*arguments, **settings)[0].split("\n")
        return [line for line in lines[1 : lines.index("[[listener]]")] if line]

    def test_who_is_logged_in_by_more_than_the_table_is_a_comment_at_the_top(self):
        customers = {"INSTALLED_APPS": [*TESTS, "tests.customers"]}
        member = self.notes(AUTH_USER_MODEL="customers.Member", **customers)
        self.assertEqual(len(member), 1)
        self.assertIn("default manager has a selection of its own", member[0])
        self.assertIn("[django.user] where", member[0])
        toml, _ = self.print(AUTH_USER_MODEL="customers.Salted", **customers)
        self.assertIn('\nverify = "active-only"\n', toml)
        self.assertIn("# The user model makes the session's hash in a way of its own", toml)
        retiree = self.notes(AUTH_USER_MODEL="customers.Retiree", SECRET_KEY_FALLBACKS=["never-printed"], **customers)
        self.assertEqual(len(retiree), 1)
        self.assertIn("get_session_auth_fallback_hash", retiree[0])
        self.assertEqual(self.notes(AUTH_USER_MODEL="customers.Retiree", **customers), [])

        known = ["ModelBackend", "AllowAllUsersModelBackend", "RemoteUserBackend", "AllowAllUsersRemoteUserBackend"]
        known = [f"django.contrib.auth.backends.{name}" for name in known]
        self.assertEqual(self.notes(AUTHENTICATION_BACKENDS=[*known, "tests.backends.Addresses"]), [])
        own = ["Selects", "Admits", "AdmitsAll", "Permissions", "NoSuch"]
        notes = self.notes(AUTHENTICATION_BACKENDS=[f"tests.backends.{name}" for name in own])
        self.assertEqual(len(notes), len(own))
        for note, name, why in zip(
            notes,
            own,
            ["not the get_user of", "user_can_authenticate", "user_can_authenticate", "get_user", "imported"],
        ):
            self.assertIn(f"The backend tests.backends.{name} ", note)
            self.assertIn(why, note)
            self.assertIn("[django.user] where", note)

    def test_what_middleware_and_packages_add_to_a_login_is_a_comment_at_the_top(self):
        plain = ["sessions.middleware.SessionMiddleware", "auth.middleware.AuthenticationMiddleware"]
        plain = [f"django.contrib.{path}" for path in plain]
        self.assertEqual(self.notes(MIDDLEWARE=[*plain, "tests.backends.Remembers", "tests.site.touch"]), [])
        added = {
            "hijack.middleware.HijackUserMiddleware": "hijack_history",
            "impersonate.middleware.ImpersonateMiddleware": "_impersonate",
            "django_otp.middleware.OTPMiddleware": "otp_device_id",
            "django_session_timeout.middleware.SessionTimeoutMiddleware": "idle time",
            "django_tenants.middleware.main.TenantMainMiddleware": "one gateway process for each",
            "django.contrib.auth.middleware.RemoteUserMiddleware": "that server guard the services",
            "tests.backends.Headers": "that server guard the services",
            "tests.backends.Hosts": "one session cookie",
            "tests.backends.Proxies": "request.user",
        }
        if django.VERSION >= (5, 1):
            added["django.contrib.auth.middleware.LoginRequiredMiddleware"] = 'require = "login"'
        notes = self.notes(MIDDLEWARE=[*plain, *added])
        self.assertEqual(len(notes), len(added), notes)
        for note, words in zip(notes, added.values()):
            self.assertIn(words, note)

        # As an app each is told too, and once.
        packages = ["hijack", "impersonate", "django_otp", "two_factor", "session_security", "django_auto_logout"]
        with tempfile.TemporaryDirectory() as folder:
            for package in packages:
                Path(folder, package).mkdir()
                Path(folder, package, "__init__.py").touch()
            sys.path.append(folder)
            try:
                notes = self.notes(INSTALLED_APPS=[*TESTS, *packages])
            finally:
                sys.path.remove(folder)
        self.assertEqual(len(notes), 4, notes)
        without = ["django.contrib.sessions", "session_gateway_django"]
        notes = self.notes(INSTALLED_APPS=without, MIDDLEWARE=["tests.backends.Hosts"])
        self.assertIn("There are no logins here", notes[0])

    def test_an_address_that_stands_in_options_is_said_as_the_driver_gets_it(self):
        for word in ["passwd", "password"]:
            options = {word: PASSWORD, "user": "boss", "db": "sales", "host": "other.example", "port": 3307}
            _, said = self.print(DATABASES={"default": {**MYSQL, "PASSWORD": "", "OPTIONS": options}})
            self.assertIn("DATABASE_URL = mysql://boss:PASSWORD@other.example:3307/sales\n", said)
        options = {"password": PASSWORD, "user": "boss", "dbname": "sales", "host": "other.example", "port": 5434}
        _, said = self.print(DATABASES={"default": {**POSTGRES, "OPTIONS": options}})
        self.assertIn("DATABASE_URL = postgres://django:PASSWORD@db.example:5433/sales\n", said)
        only = {"ENGINE": POSTGRES["ENGINE"], "NAME": "shop", "OPTIONS": options}
        _, said = self.print(DATABASES={"default": only})
        self.assertIn("DATABASE_URL = postgres://boss:PASSWORD@other.example:5434/sales\n", said)
        socket = {**MYSQL, "HOST": "", "PORT": "", "OPTIONS": {"unix_socket": "/run/my.sock", "passwd": PASSWORD}}
        _, said = self.print(DATABASES={"default": {**socket, "PASSWORD": ""}})
        self.assertIn("mysql://django:PASSWORD@localhost/shop?socket=/run/my.sock\n", said)

    def test_of_several_servers_the_first_is_said_with_a_comment(self):
        for ports in ["5432,5433", "5432"]:
            toml, said = self.print(DATABASES={"default": {**POSTGRES, "HOST": "a.example,b.example", "PORT": ports}})
            self.assertIn("DATABASE_URL = postgres://django:PASSWORD@a.example:5432/shop\n", said)
            self.assertIn("# HOST names several servers (a.example,b.example)", toml)

    def test_a_cookie_that_no_browser_keeps_is_refused_with_the_setting(self):
        for settings in [
            {"SESSION_COOKIE_AGE": 0},
            {"SESSION_COOKIE_AGE": -5},
            {"SESSION_COOKIE_AGE": 3650 * 86400 + 1},
            {"SESSION_COOKIE_SAMESITE": "None"},
            {"SESSION_COOKIE_NAME": "session id"},
            {"SESSION_COOKIE_NAME": "__Host-sessionid"},
            {"SESSION_COOKIE_NAME": "__Secure-sessionid"},
            {"SESSION_COOKIE_NAME": "__Host-a", "SESSION_COOKIE_SECURE": True, "SESSION_COOKIE_DOMAIN": "a.example"},
            {"SESSION_COOKIE_NAME": "__Host-a", "SESSION_COOKIE_SECURE": True, "SESSION_COOKIE_PATH": "/a"},
            {"SESSION_COOKIE_DOMAIN": "shop.example:80"},
            {"SESSION_COOKIE_PATH": "/a;b"},
            {"SESSION_COOKIE_PATH": "a"},
        ]:
            self.assertIn(next(iter(settings)), self.refused(**settings))
        toml, _ = self.print(SESSION_COOKIE_NAME="__Host-a", SESSION_COOKIE_SECURE=True, SESSION_COOKIE_AGE=1)
        self.assertIn('\nname = "__Host-a"\nage = "1s"\n', toml)

    def test_a_login_page_that_the_gateway_does_not_take_is_a_comment(self):
        for url in ["/log in/", "/in/?a=b", "/in/#a", "//in/", "/a//b/", "/a/../b/", "/in\\", "/%2e/", "/änmelden/"]:
            toml, _ = self.print(LOGIN_URL=url)
            self.assertNotIn("login_url =", toml)
            self.assertIn("# LOGIN_URL is no plain path", toml)
        for url in ["/", "/in", "/a/b.c/", "/%C3%A4nmelden/", "https://login.example:8443/in/", "https://a.example"]:
            self.assertIn(f'login_url = "{url}"', self.print(LOGIN_URL=url)[0])

    def test_origins_are_said_as_browsers_have_them_and_what_is_none_is_a_comment(self):
        none = ["https://a.example/path", "shop.example", "https://b c.example", "https://c.example:99999"]
        toml, _ = self.print(
            CSRF_TRUSTED_ORIGINS=[*none, "https://D.example:443/", "https://d.example", "http://e.example:8080"]
        )
        self.assertIn('\ntrusted_origins = ["https://d.example", "http://e.example:8080"]\n', toml)
        for origin in none:
            self.assertIn(f"# CSRF_TRUSTED_ORIGINS has {origin}, which is no origin", toml)

    def test_a_setting_with_a_line_break_stays_in_its_comment(self):
        toml, _ = self.print(CSRF_TRUSTED_ORIGINS=["https://a.example\n[gateway]\n\u2028x = 1"])
        self.assertIn("# CSRF_TRUSTED_ORIGINS has https://a.example [gateway] x = 1, which is no origin", toml)

    def test_names_that_are_no_part_of_a_path_or_a_file_are_refused(self):
        for name in [".", "..", ".hidden", "-rf", "a/b", "", "x" * 63]:
            self.assertIn("--upstream", self.refused(f"--upstream={name}=127.0.0.1:1"))
        toml, said = self.print("--upstream=a-b=127.0.0.1:1", "--upstream=a.b=127.0.0.1:2", "--upstream=_=127.0.0.1:3")
        for name in ["a-b", "a.b", "_"]:
            self.assertIn(f'keys = [{{ kid = "{name}-1", secret = {{ file = "secrets/{name}_key" }} }}]', toml)
            self.assertIn(f"--upstream {name} --kid {name}-1 --out secrets/{name}_key\n", said)
        self.print("--upstream", "x" * 62 + "=127.0.0.1:1")

    def test_addresses_and_an_issuer_that_the_gateway_does_not_take_are_refused(self):
        for option, value in [
            ("--listen", "localhost:80"),
            ("--listen", "127.0.0.1"),
            ("--listen", "127.0.0.1:65536"),
            ("--listen", "::1:80"),
            ("--django", "django:0"),
            ("--django", "django:65536"),
            ("--upstream", "a=a:99999"),
            ("--issuer", "the shop"),
            ("--issuer", 'a"b'),
            ("--issuer", "x" * 201),
        ]:
            self.assertIn(option, self.refused(f"{option}={value}"))
        for address in ["[::1]:8080", "0.0.0.0:0", "unix:/run/gateway.sock"]:
            self.assertIn(f'address = "{address}"', self.print("--listen", address)[0])

    def test_upstreams_and_addresses_are_as_they_are_asked_for(self):
        arguments = ["--upstream", "cart=127.0.0.1:3001", "--upstream", "v1.orders=unix:/run/orders.sock"]
        arguments += ["--django", "django:8000", "--issuer", "https://x.example", "--listen", "0.0.0.0:80"]
        toml, said = self.print(*arguments)
        for line in [
            'servers = ["127.0.0.1:3001"]',
            'keys = [{ kid = "cart-1", secret = { file = "secrets/cart_key" } }]',
            '[upstream."v1.orders"]',
            'servers = ["unix:/run/orders.sock"]',
            'servers = ["django:8000"]',
            'issuer = "https://x.example"',
            'address = "0.0.0.0:80"',
        ]:
            self.assertIn("\n" + line, toml)
        self.assertIn("--upstream v1.orders --kid v1.orders-1 --out secrets/v1.orders_key\n", said)
        for wrong in ["cart", "a b=127.0.0.1:1", "cart=http://x", "django=127.0.0.1:1"]:
            self.assertIn("--upstream", self.refused("--upstream", wrong))

    def test_a_file_is_written_once(self):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "gateway.toml")
            done = self.django("session_gateway_config", "--output", str(file))
            self.assertEqual((done.returncode, done.stdout), (0, ""))
            self.check(file.read_text(encoding="utf-8"))
            self.assertIn("was not written", self.refused("--output", str(file)))


class UsersElsewhere:
    """A router of a site whose users have a database of their own."""

    def db_for_write(self, model, **hints):
        return "users" if model._meta.app_label == "auth" else None


class NoJson:
    """A serializer that writes something else."""

    def dumps(self, data):
        return b"no JSON"

    def loads(self, data):
        return {}


class CheckTest(ProjectTest):
    def found(self, **settings):
        """The numbers of what `manage.py check` has to say."""
        done = self.django("check", "--tag", "session_gateway", **settings)
        self.assertNotIn("Traceback", done.stderr)
        text = done.stdout + done.stderr
        return [number for number in ["W001", "W002", "W003", "E001"] if f"session_gateway_django.{number}" in text]

    def test_a_project_is_told_what_does_not_work(self):
        immediate = {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": "/srv/db",
            "OPTIONS": {"transaction_mode": "IMMEDIATE"},
        }
        good = {"DATABASES": {"default": immediate}}
        self.assertEqual(self.found(**good), [])
        self.assertEqual(self.found(DATABASES={"default": POSTGRES}), [])
        self.assertEqual(self.found(SESSION_ENGINE="django.contrib.sessions.backends.db", **good), ["W001"])
        self.assertEqual(self.found(SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies", **good), ["W001"])
        self.assertEqual(self.found(SESSION_SERIALIZER="tests.test_command.NoJson", **good), ["W002"])
        cached = {"SESSION_ENGINE": "session_gateway_django.cached_db", **good}
        self.assertEqual(self.found(**cached), [])
        self.assertEqual(self.found(SESSION_GATEWAY_CACHE_SECONDS=3600, **cached), ["E001"])

    @unittest.skipIf(django.VERSION < (5, 1), "transaction_mode came with Django 5.1")
    def test_sqlite_that_does_not_begin_with_the_lock_is_told(self):
        self.assertEqual(self.found(), ["W003"])
