"""Starts what is measured and what stands around it, in one folder on free ports, and stops all of it."""

import os
import random
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import time
from pathlib import Path

import django_rows
import machine

CONFIGS = Path(__file__).parent / "configs"


class Failed(Exception):
    """What could not be started, or does not answer as it should: one sentence."""


class Server:
    """A running program with its children."""

    def __init__(self, name, process, port, log):
        self.name = name
        self.port = port
        self.log = log
        self.pid = process.pid
        self._process = process

    def cpu_seconds(self):
        """CPU time of it and its children until now, in seconds."""
        return machine.cpu_seconds(self._process.pid)

    def check(self):
        """Fails if it has ended."""
        if self._process.poll() is not None:
            raise Failed(f"{self.name} ended with code {self._process.returncode}:\n{self.last_words()}")

    def last_words(self):
        """The end of its log."""
        return self.log.read_text(errors="replace")[-2000:]

    def stop(self):
        """Asks it to end at once (a fast shutdown, in PostgreSQL's words), and waits."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()


class Servers:
    """The programs that are running, and the folder that they live in; leaving it stops and removes both."""

    def __init__(self, programs):
        self._programs = programs
        self._running = []
        self._password = secrets.token_hex(16)
        self.secret_key = secrets.token_urlsafe(50)
        self.token_key = secrets.token_hex(32)
        self.measured, self.around = machine.cpus()

    def __enter__(self):
        # The user postgres must reach its folder in here.
        self.folder = Path(tempfile.mkdtemp(prefix="session-gateway-bench."))
        self.folder.chmod(0o711)
        return self

    def __exit__(self, *_):
        # A second Ctrl-C must not leave half of it behind.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        for server in reversed(self._running):
            server.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def upstream(self):
        """The service behind every contender."""
        return self._nginx("upstream", self.around, {})

    def proxy(self, upstream):
        """nginx in front of it."""
        return self._nginx("proxy", self.measured, {"UPSTREAM": upstream.port})

    def gateway(self, name, upstream, database, log_level, max_staleness="0s"):
        """The gateway in front of it, with a database."""
        folder = self._folder(name)
        port = _free_port()
        values = {"PORT": port, "UPSTREAM": upstream.port, "MAX_STALENESS": max_staleness}
        config = _config("gateway.toml", folder, values)
        environment = {
            "PATH": os.environ["PATH"],
            "BENCH_DATABASE": database,
            "BENCH_SECRET_KEY": self.secret_key,
            "BENCH_TOKEN_KEY": self.token_key,
        }
        command = [self._programs.gateway, "run", "--config", config, "--log-level", log_level]
        return self._start(name, command, port, self.measured, environment)

    def sqlite(self, rows):
        """A file with these sessions, as a new Django site has it. Its address."""
        path = self._folder("sqlite") / "db.sqlite3"
        database = sqlite3.connect(path)
        database.executescript(django_rows.TABLES.format(datetime="datetime"))
        # As django/db/backends/sqlite3/operations.py adapts a datetime.
        dated = ((key, data, date.strftime("%Y-%m-%d %H:%M:%S.%f")) for key, data, date in rows)
        database.executemany("INSERT INTO django_session VALUES (?, ?, ?)", dated)
        user = (django_rows.USER, django_rows.PASSWORD, True)
        database.execute("INSERT INTO auth_user VALUES (?, ?, ?)", user)
        database.commit()
        database.executescript(django_rows.INDEX)
        database.close()
        return f"sqlite:{path}"

    def postgres(self, rows):
        """A new cluster with these sessions and PostgreSQL's own settings. The server and its address."""
        folder = self._folder("postgres")
        port = _free_port()
        address = f"postgres://postgres:{self._password}@127.0.0.1:{port}/postgres"
        password = folder / "password"
        password.write_text(self._password)
        as_postgres = []
        # PostgreSQL refuses to run as root.
        if os.getuid() == 0:
            as_postgres = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
            shutil.chown(folder, "postgres")
            shutil.chown(password, "postgres")
        programs = self._programs.postgres_bin
        initdb = [programs / "initdb", f"--pgdata={folder}/data", "--username=postgres", "--no-sync"]
        initdb += ["--auth=scram-sha-256", f"--pwfile={password}", "--encoding=UTF8", "--locale=C"]
        _run("initdb", as_postgres + initdb, cwd="/")
        serve = [programs / "postgres", "-D", f"{folder}/data", "-p", str(port)]
        serve += ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
        server = self._start("postgres", as_postgres + serve, port, self.measured)
        # It listens before it has started.
        is_ready = [programs / "pg_isready", "--quiet", "--host=127.0.0.1", f"--port={port}"]
        _wait(server, lambda: subprocess.run(is_ready).returncode == 0)
        psql = [programs / "psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", address]
        _run("psql", psql, input=_postgres_script(rows))
        return server, address

    def _nginx(self, name, cpus, values):
        folder = self._folder(name)
        # nginx makes the folders in this one itself.
        (folder / "temp").mkdir()
        port = _free_port()
        config = _config(f"{name}.nginx.conf", folder, {"PORT": port, **values})
        command = [self._programs.nginx, "-e", "stderr", "-p", folder, "-c", config]
        return self._start(name, command, port, cpus)

    def _start(self, name, command, port, cpus, environment=None):
        log = self.folder / f"{name}.log"
        pinned = ["taskset", "--cpu-list", ",".join(map(str, cpus)), *command]
        # Appending, so that the access log can be emptied between two measurements.
        with log.open("ab") as out:
            process = subprocess.Popen(
                pinned,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd="/",
                env=environment,
                # A group of its own: Ctrl-C is for us, and the last resort below is for all of it.
                start_new_session=True,
            )
        server = Server(name, process, port, log)
        self._running.append(server)
        _wait(server, lambda: _answers(port))
        return server

    def _folder(self, name):
        folder = self.folder / name
        folder.mkdir(mode=0o755)
        return folder


def _config(name, folder, values):
    text = (CONFIGS / name).read_text()
    for key, value in values.items():
        text = text.replace("{{" + key + "}}", str(value))
    path = folder / name
    path.write_text(text)
    return path


def _postgres_script(rows):
    lines = [django_rows.TABLES.format(datetime="timestamp with time zone")]
    lines += ["COPY django_session FROM STDIN;"]
    lines += [f"{key}\t{data}\t{date.isoformat()}" for key, data, date in rows]
    lines += [
        "\\.",
        django_rows.INDEX,
        "CREATE INDEX django_session_session_key_c0390e0f_like "
        "ON django_session (session_key varchar_pattern_ops);",
        f"INSERT INTO auth_user VALUES ({django_rows.USER}, '{django_rows.PASSWORD}', true);",
        # Otherwise autovacuum would do both while something is measured.
        "VACUUM ANALYZE;",
        "CHECKPOINT;",
    ]
    return "\n".join(lines)


def _wait(server, ready):
    until = time.monotonic() + 30
    while not ready():
        server.check()
        if time.monotonic() > until:
            raise Failed(f"{server.name} is not ready within 30 s:\n{server.last_words()}")
        time.sleep(0.05)


def _run(name, command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise Failed(f"{name} failed: {done.stderr}")


def _free_port():
    """A port that is free now, and that the system gives to no outgoing connection later."""
    while True:
        port = random.randrange(20000, 30000)
        if not _answers(port):
            return port


def _answers(port):
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0
