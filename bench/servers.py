"""Starts programs in one folder on free ports, pinned to CPUs, and stops all of them."""

import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

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

    def memory_kib(self):
        """Memory of it and its children; what they share counts once."""
        return machine.memory_kib(self._process.pid)

    def forget_log(self):
        """Empties its log: what the access log of one measurement takes on the disk is nobody's affair later."""
        os.truncate(self.log, 0)

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
        self.programs = programs
        self.password = secrets.token_hex(16)
        self.secret_key = secrets.token_urlsafe(50)
        self.token_key = secrets.token_hex(32)
        self.measured, self.around = machine.cpus()
        self._running = []

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

    def start(self, name, command, port, cpus=None, environment=None, directory="/"):
        """Runs a program until it listens at its port; pinned to what is measured, if nothing else is said."""
        log = self.folder / f"{name}.log"
        # Appending, so that the access log can be emptied between two measurements.
        with log.open("ab") as out:
            process = subprocess.Popen(
                pinned(cpus or self.measured, command),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=directory,
                env=environment,
                # A group of its own: Ctrl-C is for us, and the last resort of `stop` is for all of it.
                start_new_session=True,
            )
        server = Server(name, process, port, log)
        self._running.append(server)
        wait(server, lambda: _answers(port))
        return server

    def new_folder(self, name):
        """A folder in the one of this run."""
        folder = self.folder / name
        folder.mkdir(mode=0o755)
        return folder


def config(name, folder, values):
    """A file of configs/, with its names replaced, in a folder."""
    text = (CONFIGS / name).read_text()
    for key, value in values.items():
        text = text.replace("{{" + key + "}}", str(value))
    path = folder / name
    path.write_text(text)
    return path


def pinned(cpus, command):
    """The command line that runs a command on these CPUs only."""
    return ["taskset", "--cpu-list", ",".join(map(str, cpus)), *map(str, command)]


def wait(server, ready):
    """Waits until a server is ready, 30 seconds at most."""
    until = time.monotonic() + 30
    while not ready():
        server.check()
        if time.monotonic() > until:
            raise Failed(f"{server.name} is not ready within 30 s:\n{server.last_words()}")
        time.sleep(0.05)


def output(name, command, **options):
    """What a command prints, when it succeeds."""
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise Failed(f"{name} failed: {done.stderr}")
    return done.stdout


def free_port():
    """A port that is free now, and that the system gives to no outgoing connection later."""
    while True:
        port = random.randrange(20000, 30000)
        if not _answers(port):
            return port


def _answers(port):
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0
