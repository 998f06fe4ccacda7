"""What a kept-alive connection that does nothing takes of memory, and what is left when all of them have gone."""

import contextlib
import resource
import socket
import ssl
import time

import clients
import programs
from contenders import Contender
from servers import Failed

CONNECTIONS = 8_000
# So many seconds its memory may take to come back: the gateway's, of whom it is asked, and others'.
PATIENCE = 20
PATIENCE_WITH_OTHERS = 3


def measure(servers, field, quick):
    """A line for nginx, haproxy and the gateway, without TLS and with."""
    count = min(1_000 if quick else CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 1_000)
    keys = field.contenders[0].keys
    behind = field.upstream

    def asked(name, server):
        return Contender(name, server.port, "/", "/echo", bool, proxy=server, keys=keys)

    plain = asked("gateway", programs.gateway(servers, "idle", behind, field.sqlite))
    over_tls = asked("gateway, TLS", programs.gateway(servers, "idle-tls", behind, field.sqlite, tls=True))
    nginx = asked("nginx", programs.nginx(servers, behind, 2 * count + 100, "idle"))
    haproxy = asked("haproxy", programs.haproxy(servers, behind, "idle-haproxy"))
    return [
        _line(servers, nginx, count, None),
        _line(servers, haproxy, count, None),
        _line(servers, plain, count, 12),
        _line(servers, over_tls, count, 20, tls=True),
    ]


def _line(servers, contender, count, target_kib, tls=False):
    server = contender.proxy
    if tls:
        # oha would have to be told to believe the certificate; a few of our own connections are as good.
        with _held(contender, 64, tls):
            pass
    else:
        clients.oha(servers, contender, 64, 1)
    time.sleep(1)
    before = server.memory_kib()
    with _held(contender, count, tls):
        among = server.memory_kib()
    gone = time.monotonic()
    until = gone + (PATIENCE if target_kib else PATIENCE_WITH_OTHERS)
    while (after := server.memory_kib()) > 1.2 * before and time.monotonic() < until:
        time.sleep(0.2)
    server.check()
    return {
        "name": contender.name,
        "connections": count,
        "before_kib": before,
        "with_kib": among,
        "each_kib": round((among - before) / count, 3),
        "after_kib": after,
        "after_seconds": round(time.monotonic() - gone, 1),
        "target_kib": target_kib,
    }


@contextlib.contextmanager
def _held(contender, count, tls):
    """So many connections, each used for one request."""
    with contextlib.ExitStack() as held:
        for _ in range(count):
            _ask(contender, held.enter_context(_connection(contender.port, tls)))
        yield


def _connection(port, tls):
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    return _TRUSTING.wrap_socket(connection) if tls else connection


def _ask(contender, connection):
    fields = "".join(f"{name}: {value}\r\n" for name, value in contender.header.items())
    connection.sendall(f"GET {contender.path} HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n".encode())
    answer = b""
    while not answer.endswith(b'{"ok":true}'):
        more = connection.recv(65536)
        if not more:
            raise Failed(f"{contender.name} closed a connection after {answer!r}")
        answer += more


_TRUSTING = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_TRUSTING.check_hostname = False
_TRUSTING.verify_mode = ssl.CERT_NONE
