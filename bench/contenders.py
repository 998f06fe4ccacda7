"""The rows of the table: each a way to the service behind, with who works for it."""

from dataclasses import dataclass
from typing import Callable

import databases
import django_rows
import programs
from figures import NGINX
from servers import Server, Servers

SESSIONS = 100_000
# So many different ones are asked for.
VARIED = 10_000


@dataclass(frozen=True)
class Contender:
    """One row of the table."""

    name: str
    # Where it is asked, and where the session that it hands on can be seen.
    port: int
    path: str
    echo: str
    # Whether what is seen there is as it must be: the JSON, with the claims of an X-Session in it.
    expected: Callable[[dict], bool]
    proxy: Server | None = None
    database: Server | None = None
    python: Server | None = None
    # The keys of the sessions with which it is asked, the most wanted first; without any there is no cookie.
    keys: tuple[str, ...] = ()
    writes: bool = False
    # Takes part in some rounds only: it is far from the others.
    slow: bool = False

    @property
    def header(self):
        """The header fields of its requests, with the first of its sessions."""
        return {"cookie": f"sessionid={self.keys[0]}"} if self.keys else {}

    @property
    def paid_by(self):
        """Who works for it, by what they are."""
        servers = {"proxy": self.proxy, "database": self.database, "python": self.python}
        return {what: server for what, server in servers.items() if server}


@dataclass(frozen=True)
class Field:
    """Everybody who takes part, running."""

    contenders: list[Contender]
    upstream: Server
    postgres: databases.Postgres
    # The address of the same sessions.
    sqlite: str | None = None


def plain_nginx(servers, behind, keys):
    """What all others are divided by."""
    nginx = programs.nginx(servers, behind)
    return Contender(NGINX, nginx.port, "/", "/echo", _nothing, proxy=nginx, keys=keys)


def start(servers: Servers, _quick):
    """Starts all of them."""
    sessions = list(django_rows.sessions(SESSIONS, servers.secret_key))
    keys = [session.key for session in sessions]
    # Sessions of their own for those that write, so that what the others read stays as it is.
    read, written, saved = (tuple(keys[VARIED * n : VARIED * (n + 1)]) for n in range(3))
    sqlite = databases.sqlite(servers, sessions)
    postgres = databases.Postgres(servers)
    databases.fill(postgres, sessions)
    databases.fill_for_others(postgres, sessions, servers.secret_key)
    postgres.tidy()
    behind = programs.upstream(servers)

    def row(name, server, path, expected, **more):
        return Contender(name, server.port, path, f"{path.rpartition('/')[0]}/echo", expected, **more)

    def plain(name, server):
        return row(name, server, "/", _nothing, proxy=server, keys=read)

    def gateway(name, server, path, expected, database=None, **more):
        return row(f"gateway, {name}", server, path, expected, proxy=server, database=database, **more)

    def python(name, server, path, expected, **more):
        return row(name, server, path, expected, database=postgres.server, slow=True, **more)

    def running(name, database, **settings):
        return programs.gateway(servers, name, behind, database, **settings)

    on_sqlite = running("sqlite", sqlite)
    on_postgres = running("postgres", postgres.address)
    late = running("late", postgres.address, max_staleness="1s")
    checking = running("checking", postgres.address, verify="user")
    telling = running("telling", postgres.address, verify="user", claims=True)
    logging = running("logging", postgres.address, log_level="info")
    django = programs.django(servers, postgres)
    asking = programs.nginx_with_django(servers, behind, django)
    apache = programs.apache(servers, behind, postgres)
    starlette = programs.starlette(servers, postgres)
    database = postgres.server
    contenders = [
        row("upstream itself", behind, "/", _nothing, keys=read),
        plain_nginx(servers, behind, read),
        plain("haproxy, plain proxy", programs.haproxy(servers, behind)),
    ]
    if servers.programs.pingora:
        contenders.append(plain("Pingora, plain proxy", programs.pingora(servers, behind)))
    contenders += [
        gateway("sessions off", on_sqlite, "/off/", _off, keys=read),
        gateway("no cookie", on_postgres, "/", _nobody, database),
        gateway("SQLite", on_sqlite, "/", logged_in, keys=read),
        gateway("PostgreSQL", on_postgres, "/", logged_in, database, keys=read),
        gateway("PostgreSQL, access log", logging, "/", logged_in, database, keys=read),
        gateway("PostgreSQL, max_staleness 1s", late, "/", logged_in, database, keys=read),
        gateway("PostgreSQL, user check", checking, "/", logged_in, database, keys=read),
        gateway("PostgreSQL, user check and claims", telling, "/claims/", _described, database, keys=read),
        gateway("SQLite, write", on_sqlite, "/write", logged_in, keys=written, writes=True),
        gateway("PostgreSQL, write", on_postgres, "/write", logged_in, database, keys=written, writes=True),
        row("Apache, mod_session_dbd", apache, "/", _pairs, proxy=apache, database=database, keys=read),
        python("Starlette, async-django-session", starlette, "/", _read_itself, python=starlette, keys=read),
        python("nginx, auth_request to Django", asking, "/", _named, proxy=asking, python=django, keys=read),
        python("Django, write", django, "/write", _read_itself, python=django, keys=saved, writes=True),
    ]
    return Field(contenders, behind, postgres, sqlite)


# What the service behind must have been told by each.


def _nothing(seen):
    return seen == {"session": "", "user": ""}


def _off(seen):
    claims = seen["claims"]
    return claims["withheld"] == "off" and not claims.keys() & {"sub", "sid", "session"}


def _nobody(seen):
    claims = seen["claims"]
    return claims["session"] == {} and not claims.keys() & {"sub", "sid"}


def logged_in(seen):
    """The first of `django_rows.sessions`."""
    claims = seen["claims"]
    return claims["sub"] == "1" and "sid" in claims and len(claims["session"]["cart"]) == 4


def _described(seen):
    user = {"username": "user-1", "email": "user-1@shop.example", "groups": ["customers", "editors"]}
    return logged_in(seen) and seen["claims"]["user"] == user


def _pairs(seen):
    return seen["user"].startswith("_auth_user_id=1&") and "cart=" in seen["user"]


def _named(seen):
    return seen["user"] == "1 user-1"


def _read_itself(seen):
    return seen["session"]["_auth_user_id"] == "1" and len(seen["session"]["cart"]) == 4
