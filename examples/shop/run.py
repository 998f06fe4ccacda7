"""Starts the shop: installs what is missing, makes keys and a database, starts everything, ends everything."""

import argparse
import contextlib
import fcntl
import hashlib
import http.server
import importlib.util
import os
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
CLIENTS = REPOSITORY / "clients"

# As gateway.toml has them.
PORTS = {"gateway": 8080, "django": 8000, "starlette": 8001, "aiohttp": 8002, "express": 8003, "go": 8004}

ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Failed(Exception):
    """A sentence for the reader."""


def main():
    options = argparse.ArgumentParser(prog="examples/shop/run", description=__doc__)
    options.add_argument("--port", type=int, default=PORTS["gateway"], help="the gateway's; 0: any free ports")
    options.add_argument("--folder", type=Path, default=REPOSITORY / "target/shop", help="what is installed")
    options.add_argument("--data", type=Path, help="database, keys and logs; FOLDER/data by default")
    options.add_argument("--gateway", help="a session-gateway program; by default it is built here with cargo")
    options.add_argument("--prepare", action="store_true", help="only install and build")
    options = options.parse_args()
    for number in ENDS:
        signal.signal(number, interrupted)
    try:
        shop = Shop(options.folder.resolve(), (options.data or options.folder / "data").resolve())
        # Where it is not to run, it need not be there.
        shop.prepare(program(options.gateway) if options.gateway and not options.prepare else options.gateway)
        if not options.prepare:
            shop.run(options.port)
    except (Failed, OSError) as failed:
        sys.exit(f"examples/shop/run: {failed}")
    except KeyboardInterrupt:
        pass


def interrupted(_number, _frame):
    for number in ENDS:
        signal.signal(number, signal.SIG_IGN)  # Once is enough: what was started is being ended.
    raise KeyboardInterrupt


class Shop:
    """Everything that runs, and where it is."""

    def __init__(self, folder, data):
        self.folder, self.data = folder, data
        self.python = folder / "python" / "bin" / "python"
        self.express = folder / "express" / "examples" / "shop" / "express"
        self.missing = {}  # Services that cannot run here, and why.
        self.running = {}

    # Installing

    def prepare(self, gateway):
        self.gateway = gateway or self.build_gateway()
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / ".lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # Another one may be at it.
            self.install_python()
            self.install("express", self.install_express)
            self.install("go", self.install_go)

    def install(self, service, how):
        """A service whose runtime is not there is left out."""
        self.missing[service] = how()
        if self.missing[service]:
            say(f"{service} is left out: {self.missing[service]}")
        else:
            del self.missing[service]

    def build_gateway(self):
        if not shutil.which("cargo"):
            if installed := shutil.which("session-gateway"):
                return os.path.abspath(installed)
            raise Failed("cargo is missing: install Rust (https://rustup.rs), or name a session-gateway with --gateway")
        say("builds the gateway (minutes at the first time)")
        self.call("cargo build", ["cargo", "build", "--release", "--locked"], cwd=REPOSITORY, shown=True)
        return REPOSITORY / os.environ.get("CARGO_TARGET_DIR", "target") / "release" / "session-gateway"

    def install_python(self):
        if sys.version_info < (3, 10):
            raise Failed(f"python3 is {sys.version.split()[0]}: 3.10 or newer is needed")
        if not all(importlib.util.find_spec(module) for module in ("ensurepip", "venv")):
            raise Failed("python3 has no venv: apt install python3-venv")
        packages = [CLIENTS / "python", CLIENTS / "django"]
        sources = [package / part for package in packages for part in ("pyproject.toml", "src")]
        # Otherwise it leads to a Python that is gone, or has never been.
        is_whole = self.python.exists()
        with made_from(self.folder / "python", [HERE / "requirements.txt", *sources], is_whole) as folder:
            if not folder:
                return
            say("installs Django, Starlette and aiohttp")
            self.call("python3 -m venv", [os.path.realpath(sys.executable), "-m", "venv", folder])
            # Of a copy: building leaves files behind.
            copies = [shutil.copytree(package, folder / "src" / package.name) for package in packages]
            pip = [self.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            self.call("pip install", [*pip, "--requirement", HERE / "requirements.txt", *copies])

    def install_express(self):
        if lacking := lacks("node", "nodejs", "--version", (18, 0)) or lacks("npm", "npm"):
            return lacking
        # A service finds its packages beside it or above it. So that none are in the source tree, it runs from a copy
        # that has around it what it and package.json name.
        packages = [HERE / "express" / "package.json", HERE / "express" / "package-lock.json"]
        is_whole = (self.express / "node_modules").exists()
        with made_from(self.folder / "express", packages, is_whole) as folder:
            for file in (HERE / "express" / "service.js", *packages):
                put(shutil.copyfile, file, self.express / file.name)
            put(os.symlink, HERE / "pages", self.express.parent / "pages")
            put(os.symlink, CLIENTS / "node", self.folder / "express" / "clients" / "node")
            if folder:
                say("installs Express")
                self.call("npm ci", ["npm", "ci", "--no-audit", "--no-fund"], cwd=self.express)
        return None

    def install_go(self):
        if lacking := lacks("go", "golang-go", "version", (1, 19)):
            return lacking
        self.call("go build", ["go", "build", "-o", self.folder / "go-service", "."], cwd=HERE / "go")
        return None

    def call(self, name, command, cwd=None, shown=False, **environment):
        """Runs a command to its end. What it says is shown where it fails."""
        output = None if shown else subprocess.PIPE
        ended = subprocess.run(
            command,
            cwd=cwd,
            env={**os.environ, **environment},
            stdout=output,
            stderr=None if shown else subprocess.STDOUT,
            check=False,
        )
        if ended.returncode:
            raise Failed(f"{name} failed\n{'' if shown else ended.stdout.decode(errors='replace')}".rstrip())

    # Running

    def run(self, port):
        ports = free_ports(port)
        site = {"SHOP_FOLDER": str(self.data), "DJANGO_SETTINGS_MODULE": "shop.settings"}
        manage = [self.python, "-B", HERE / "django" / "manage.py"]
        self.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.make_keys()
        (self.data / "db.sqlite3").touch(mode=0o600)  # It will hold sessions.
        self.call("migrate", [*manage, "migrate", "--verbosity", "0"], **site)
        self.call("making the user demo", [*manage, "shell", "-c", DEMO_USER], **site)
        config = self.data / "gateway.toml"
        config.write_text(with_ports((HERE / "gateway.toml").read_text(), ports))
        try:
            listen = f"127.0.0.1:{ports['django']}"
            self.start("django", [*manage, "runserver", "--noreload", listen], ports, **site)
            self.start("starlette", [self.python, "-B", HERE / "starlette" / "service.py"], ports)
            self.start("aiohttp", [self.python, "-B", HERE / "aiohttp" / "service.py"], ports)
            self.start("express", ["node", self.express / "service.js"], ports, NODE_ENV="production")
            self.start("go", [self.folder / "go-service"], ports)
            for service in set(PORTS) - {"gateway"}:
                self.await_listening(service, ports[service])
            self.start("gateway", [self.gateway, "run", "--config", config], ports)
            self.await_listening("gateway", ports["gateway"])
            if port and ports["gateway"] != port:
                say(f"port {port} is taken; using {ports['gateway']}")
            say(f"open http://127.0.0.1:{ports['gateway']}/ and log in as demo, password demo")
            say(f"logs are in {self.data / 'logs'}; Ctrl-C ends everything")
            ended, status = os.wait()
            raise Failed(self.epitaph(ended, os.waitstatus_to_exitcode(status)))
        finally:
            self.end()

    def make_keys(self):
        """Django's SECRET_KEY, and a key for each service that it shares with the gateway."""
        keys = self.data / "keys"
        keys.mkdir(exist_ok=True, mode=0o700)
        for name in set(PORTS) - {"gateway"}:
            # Whole or not at all, and never over one that is in use.
            new = keys / f".{name}.{os.getpid()}"
            write_key(secrets.token_urlsafe(48), new)
            with contextlib.suppress(FileExistsError):
                os.link(new, keys / name)
            new.unlink()

    def start(self, name, command, ports, **environment):
        """Starts a program that is to run until the end; or what stands in for a service that cannot."""
        if name in self.missing:
            stand_in(ports[name], f"{name} is not running here: {self.missing[name]}")
            return
        own = {"PORT": str(ports[name]), "SESSION_KEY_FILE": str(self.data / "keys" / name)}
        (self.data / "logs").mkdir(exist_ok=True)
        with open(self.data / "logs" / f"{name}.log", "wb") as log:
            # A session of its own: Ctrl-C comes to us, and we end them in order.
            self.running[name] = subprocess.Popen(
                command,
                env={**os.environ, **own, **environment},
                cwd=self.data,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def await_listening(self, name, port):
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            process = self.running[name]
            if process.poll() is not None:
                raise Failed(self.epitaph(process.pid, process.returncode))
            if time.monotonic() > deadline:
                raise Failed(f"{name} does not listen on port {port} after a minute")
            time.sleep(0.05)

    def epitaph(self, process, code):
        name = next(name for name, running in self.running.items() if running.pid == process)
        self.running.pop(name)
        log = self.data / "logs" / f"{name}.log"
        how = f"with exit code {code}" if code >= 0 else f"by {signal.Signals(-code).name}"
        last = "\n".join("  " + line for line in log.read_text(errors="replace").splitlines()[-15:])
        return f"{name} ended {how}, so everything ends. Its last lines ({log}):\n{last}"

    def end(self):
        """The gateway first: it answers what it has begun, and the services are still there."""
        for process in reversed(self.running.values()):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


# No command makes a user with a password that is this bad.
DEMO_USER = """
from django.contrib.auth import get_user_model
users = get_user_model().objects
users.filter(username="demo").exists() or users.create_user("demo", password="demo")
"""


def lacks(program, package, ask=None, wanted=(0, 0)):
    """Why a program cannot be used, or None."""
    if not shutil.which(program):
        return f"{program} is missing: apt install {package}"
    if ask:
        said = subprocess.run([program, ask], capture_output=True, text=True, check=False).stdout
        found = re.search(r"(\d+)\.(\d+)", said)
        if not found or (int(found[1]), int(found[2])) < wanted:
            has = found[0] if found else "of no known version"
            return f"{program} is {has}: {wanted[0]}.{wanted[1]} or newer is needed"
    return None


def program(named):
    """The path of a program, from everywhere."""
    if found := shutil.which(named):
        return os.path.abspath(found)
    raise Failed(f"there is no program {named}")


def put(make, what, path):
    """Makes a file, whole or not at all: it may be in use, and this may be interrupted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    make(what, new)
    os.replace(new, path)


def write_key(key, path):
    path.touch(mode=0o600)
    path.write_text(key)


def say(line):
    print(f"shop: {line}", flush=True)


@contextlib.contextmanager
def made_from(folder, sources, is_whole):
    """Gives the folder to be made, emptied; or None where it is whole and was made from just these."""
    digest = hashlib.sha256(str(folder).encode())
    for source in sources:
        for file in sorted(source.rglob("*")) if source.is_dir() else [source]:
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(file.read_bytes())
    stamp = folder / ".made-from"
    if is_whole and stamp.exists() and stamp.read_text() == digest.hexdigest():
        yield None
        return
    if os.path.lexists(folder) and not stamp.exists() and not is_empty(folder):
        raise Failed(f"{folder} is there and was not made by this program")
    folder.mkdir(exist_ok=True)
    stamp.write_text("")  # It stays while the folder is emptied and made: until then it is nobody else's either.
    for path in set(folder.iterdir()) - {stamp}:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    yield folder
    stamp.write_text(digest.hexdigest())


def is_empty(folder):
    return folder.is_dir() and not any(folder.iterdir())


def free_ports(wanted):
    """A port for each, as gateway.toml has it or, where that is taken, another one."""
    ports = {}
    for name, usual in PORTS.items():
        port = wanted if name == "gateway" else usual if wanted else 0
        while port == 0 or port in ports.values() or not is_free(port):
            # Below those that the system gives to outgoing connections.
            port = random.randrange(20000, 30000)
        ports[name] = port
    return ports


def is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def with_ports(config, ports):
    """gateway.toml with these ports in the place of the usual ones; others stay."""
    used = {str(PORTS[name]): str(port) for name, port in ports.items()}
    return re.sub(r'(?<="127\.0\.0\.1:)\d+(?=")', lambda usual: used.get(usual[0], usual[0]), config)


def stand_in(port, sentence):
    """A page in the place of a service that cannot run here."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = PAGE.replace("SENTENCE", sentence).encode()
            self.send_response(503)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()


PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Not running</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="stylesheet" href="/static/shop.css">
</head><body><main><section class="sentence"><h1>Not running</h1><p>SENTENCE.</p>
<p><a href="/">Back to Django</a></p></section></main></body></html>
"""

if __name__ == "__main__":
    main()
