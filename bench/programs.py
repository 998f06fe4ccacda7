"""Starts each program that takes part: the service behind all, the proxies, and the Python services."""

import os
from pathlib import Path

from servers import config, free_port, output

APPS = Path(__file__).parent / "apps"
CLAIMS = 'user = ["username", "email", "groups"]'
APACHE_MODULES = Path("/usr/lib/apache2/modules")


def upstream(servers):
    """The service behind every contender."""
    return _nginx(servers, "upstream", {}, servers.around)


def nginx(servers, behind, connections=1024, name="proxy"):
    """nginx as a plain proxy; of its connections each client takes two."""
    return _nginx(servers, name, {"UPSTREAM": behind.port}, servers.measured, "proxy", connections)


def nginx_with_django(servers, behind, django):
    """nginx that asks Django about each request."""
    return _nginx(servers, "auth_request", {"UPSTREAM": behind.port, "DJANGO": django.port}, servers.measured)


def haproxy(servers, behind, name="haproxy"):
    """haproxy as a plain proxy."""
    folder = servers.new_folder(name)
    port = free_port()
    path = config("haproxy.cfg", folder, {"PORT": port, "UPSTREAM": behind.port})
    return servers.start(name, [servers.programs.haproxy, "-db", "-f", path], port)


def pingora(servers, behind):
    """A minimal proxy made of Pingora."""
    port = free_port()
    return servers.start("pingora", [servers.programs.pingora, str(port), str(behind.port)], port)


def apache(servers, behind, postgres):
    """Apache as a proxy that reads sessions with mod_session_dbd."""
    folder = servers.new_folder("apache")
    port = free_port()
    values = {
        "PORT": port,
        "UPSTREAM": behind.port,
        "DATABASE_PORT": postgres.server.port,
        "PASSWORD": postgres.password,
        "MODULES": APACHE_MODULES,
        # Started by root it wants another user for its work.
        "USER": "User www-data\nGroup www-data" if os.getuid() == 0 else "",
    }
    path = config("apache.conf", folder, values)
    command = [servers.programs.apache, "-D", "FOREGROUND", "-d", folder, "-f", path]
    return servers.start("apache", command, port)


def gateway(servers, name, behind, database, log_level="info,access=off", tls=False, claims=False, **settings):
    """The gateway with a database; settings are names of configs/gateway.toml in small letters.

    With `claims` one route tells the upstream of the user.
    """
    folder = servers.new_folder(f"gateway-{name}")
    port = free_port()
    values = {"max_staleness": "0s", "table": "django_session", "token": 4096, "verify": "off", **settings}
    values |= {"port": port, "upstream": behind.port, "tls": _certificate(folder) if tls else ""}
    values["claims"] = CLAIMS if claims else ""
    path = config("gateway.toml", folder, {key.upper(): value for key, value in values.items()})
    environment = {
        "PATH": os.environ["PATH"],
        "BENCH_DATABASE": database,
        "BENCH_SECRET_KEY": servers.secret_key,
        "BENCH_TOKEN_KEY": servers.token_key,
    }
    command = [servers.programs.gateway, "run", "--config", path, "--log-level", log_level]
    return servers.start(f"gateway-{name}", command, port, environment=environment)


def django(servers, postgres):
    """Django on gunicorn: two processes that serve one request after the other."""
    port = free_port()
    command = [servers.programs.python, "-m", "gunicorn", "django_site:application", "--workers=2"]
    command += ["--worker-class=sync", f"--bind=127.0.0.1:{port}", "--log-level=warning"]
    return servers.start("django", command, port, environment=_python(servers, postgres), directory=APPS)


def starlette(servers, postgres):
    """A Starlette service on uvicorn, with uvloop and httptools."""
    port = free_port()
    command = [servers.programs.python, "-m", "uvicorn", "starlette_app:app", f"--port={port}"]
    command += ["--loop=uvloop", "--http=httptools", "--no-access-log", "--log-level=warning"]
    return servers.start("starlette", command, port, environment=_python(servers, postgres), directory=APPS)


def _nginx(servers, name, values, cpus, configuration=None, connections=1024):
    folder = servers.new_folder(f"nginx-{name}")
    # nginx makes the folders in this one itself.
    (folder / "temp").mkdir()
    port = free_port()
    server = config(f"{configuration or name}.nginx.conf", folder, {"PORT": port, **values})
    path = config("common.nginx.conf", folder, {"SERVER": server, "CONNECTIONS": connections})
    command = [servers.programs.nginx, "-e", "stderr", "-p", folder, "-c", path]
    return servers.start(f"nginx-{name}", command, port, cpus)


def _python(servers, postgres):
    return {
        "PATH": os.environ["PATH"],
        "PYTHONDONTWRITEBYTECODE": "1",
        "BENCH_SECRET_KEY": servers.secret_key,
        "BENCH_DATABASE_PORT": str(postgres.server.port),
        "BENCH_DATABASE_PASSWORD": postgres.password,
    }


def _certificate(folder):
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", folder / "key.pem", "-out", folder / "cert.pem", "-days", "2"]
    output("openssl", [*command, "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
    return 'tls = [{ certificate = "cert.pem", key = "key.pem" }]'
