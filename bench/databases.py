"""The databases: Django's tables with many sessions, and what others need of the same sessions."""

import os
import shutil
import sqlite3
import subprocess
from urllib.parse import urlencode

import django_rows
from servers import Server, free_port, output, wait

_USER_COLUMNS = (
    "id, password, username, email, first_name, last_name, is_superuser, is_staff, is_active, date_joined"
)
# Behind what `django_rows.users` says.
_USER_REST = ("", "", 0, 0, 1, "2026-01-01 00:00:00")


class Postgres:
    """A new cluster with PostgreSQL's own settings."""

    def __init__(self, servers):
        folder = servers.new_folder("postgres")
        port = free_port()
        password = folder / "password"
        password.write_text(servers.password)
        as_postgres = []
        # PostgreSQL refuses to run as root.
        if os.getuid() == 0:
            as_postgres = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
            shutil.chown(folder, "postgres")
            shutil.chown(password, "postgres")
        self._programs = servers.programs.postgres_bin
        initdb = [self._programs / "initdb", f"--pgdata={folder}/data", "--username=postgres", "--no-sync"]
        initdb += ["--auth=scram-sha-256", f"--pwfile={password}", "--encoding=UTF8", "--locale=C"]
        output("initdb", as_postgres + initdb, cwd="/")
        serve = [self._programs / "postgres", "-D", f"{folder}/data", "-p", str(port)]
        serve += ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
        self.password = servers.password
        self.server: Server = servers.start("postgres", as_postgres + serve, port)
        # It listens before it has started.
        is_ready = [self._programs / "pg_isready", "--quiet", "--host=127.0.0.1", f"--port={port}"]
        wait(self.server, lambda: subprocess.run(is_ready).returncode == 0)
        self.address = f"postgres://postgres:{servers.password}@127.0.0.1:{port}/postgres"

    def sql(self, script):
        """Runs a script of psql, and returns what it prints, without headings."""
        psql = [self._programs / "psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align"]
        return output("psql", [*psql, "--set=ON_ERROR_STOP=1", self.address], input=script)

    def tidy(self):
        """What autovacuum and the checkpointer would otherwise do later, while something is measured."""
        self.sql("VACUUM ANALYZE; CHECKPOINT;")


def sqlite(servers, sessions):
    """A file with these sessions, as a new Django site has it. Its address."""
    path = servers.new_folder("sqlite") / "db.sqlite3"
    database = sqlite3.connect(path)
    tables = django_rows.SESSION_TABLE + django_rows.USER_TABLES
    database.executescript(tables.format(name="django_session", datetime="datetime"))
    # As django/db/backends/sqlite3/operations.py adapts a datetime.
    rows = ((row.key, row.data, row.expire_date.strftime("%Y-%m-%d %H:%M:%S.%f")) for row in sessions)
    database.executemany("INSERT INTO django_session VALUES (?, ?, ?)", rows)
    values = f"VALUES (?, ?, ?, ?, {', '.join('?' * len(_USER_REST))})"
    users = ((*user, *_USER_REST) for user in django_rows.users())
    database.executemany(f"INSERT INTO auth_user ({_USER_COLUMNS}) {values}", users)
    database.commit()
    database.executescript(django_rows.INDEX.format(name="django_session"))
    database.close()
    return f"sqlite:{path}"


def fill(postgres, sessions):
    """Django's tables, with these sessions and all users."""
    tables = django_rows.SESSION_TABLE + django_rows.USER_TABLES
    lines = [tables.format(name="django_session", datetime="timestamp with time zone")]
    lines += _copy("django_session", ((row.key, row.data, row.expire_date.isoformat()) for row in sessions))
    lines += [django_rows.INDEX.format(name="django_session")]
    lines += [django_rows.LIKE_INDEX.format(name="django_session")]
    lines += _copy(f"auth_user ({_USER_COLUMNS})", ((*user, *_USER_REST) for user in django_rows.users()))
    # Each user is in both groups.
    lines += ["INSERT INTO auth_group VALUES (1, 'customers'), (2, 'editors');"]
    lines += ["INSERT INTO auth_user_groups SELECT 2 * u.id + g.id, u.id, g.id FROM auth_user u, auth_group g;"]
    postgres.sql("\n".join(lines))


def fill_for_others(postgres, sessions, secret_key):
    """The same sessions in the forms that others read."""
    # async-django-session reads what Django wrote before 3.1.
    lines = ["CREATE SCHEMA legacy;"]
    lines += [django_rows.SESSION_TABLE.format(name="legacy.django_session", datetime="timestamp with time zone")]
    legacy = (
        (row.key, django_rows.legacy_data(row.contents, secret_key), row.expire_date.isoformat())
        for row in sessions
    )
    lines += _copy("legacy.django_session", legacy)
    # The table of Apache's documentation. Apache's sessions are pairs.
    lines += ["CREATE TABLE session (key char(36) PRIMARY KEY, value text, expiry bigint NOT NULL);"]
    pairs = (urlencode({name: str(value) for name, value in row.contents.items()}) for row in sessions)
    lines += _copy("session", ((row.key, of_row, 0) for row, of_row in zip(sessions, pairs)))
    postgres.sql("\n".join(lines))


def copied(table, rows):
    """A script for psql that puts rows into a table."""
    return "\n".join(_copy(table, rows))


def _copy(table, rows):
    return [f"COPY {table} FROM STDIN;", *("\t".join(map(str, row)) for row in rows), "\\.", ""]
