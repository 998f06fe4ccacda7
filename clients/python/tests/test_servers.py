"""The middleware in real servers: what they make of the request line, how they send the head."""

import os
import socket
import subprocess
import sys
import unittest
from pathlib import Path

from servers import SERVERS
from support import HOST, token

HERE = Path(__file__).parent
PATIENCE_SECONDS = 60
TARGETS = (
    "/",
    "/a%2Fb;c/%2e?x=%20y&z=%zz+&&",
    "/caf%C3%A9/%ff",
    "/a?",
    "/a??b",
    "/a:b@c/!$&'()*+,=~-._",
    "/%61",
)
UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
)

CLOSE = "Connection: close\r\nContent-Length: 0"


class Servers(unittest.TestCase):
    def start(self, name: str) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        server = subprocess.Popen(
            [sys.executable, str(HERE / "servers.py"), name, str(listener.fileno())],
            pass_fds=[listener.fileno()],
            cwd=HERE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        # Only the server has it now, so that one that ends refuses connections.
        listener.close()
        self.log = b""

        def end() -> None:
            server.terminate()
            self.log = server.communicate(timeout=PATIENCE_SECONDS)[1]

        self.end = end
        self.addCleanup(lambda: server.poll() is None and end())
        return port

    def ask(self, port: int, method: str, target: str, more: str = "", signed: str = "") -> str:
        """The head of the answer."""
        text = signed or token(method=method, target=target)
        with socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS) as connection:
            connection.sendall(
                f"{method} {target} HTTP/1.1\r\nHost: {HOST}\r\nX-Session: {text}\r\n"
                f"{more or CLOSE}\r\n\r\n".encode()
            )
            head = b""
            while b"\r\n\r\n" not in head:
                found = connection.recv(65536)
                if not found:
                    break
                head += found
        return head.split(b"\r\n\r\n")[0].decode("latin-1")

    def walk(self, name: str) -> int:
        port = self.start(name)
        field = 'x-session-set: {"set":{"cart":["book","pen"]}}'
        for target in TARGETS:
            with self.subTest(name, target=target):
                head = self.ask(port, "POST", target)
                self.assertEqual(head.split(" ")[1], "200")
                self.assertIn(field, head.lower())
        for other in ("/b", "/a%2fb", "/a?x", "//a"):
            with self.subTest(name, other=other):
                head = self.ask(port, "POST", "/a", signed=token(method="POST", target=other))
                self.assertEqual(head.split(" ")[1], "401")
        head = self.ask(port, "GET", "/a", signed=token(target="/b"))
        self.assertEqual(head.split(" ")[1], "200")
        self.assertEqual(self.ask(port, "GET", "/a", signed="x").split(" ")[1], "401")
        return port

    def test_every_server_tells_the_target_as_it_was_signed(self) -> None:
        for name in sorted(set(SERVERS) - {"wsgiref"}):
            self.walk(name)
            self.end()

    def test_a_server_that_does_not_tell_the_target_gets_no_unsafe_request(self) -> None:
        port = self.start("wsgiref")
        self.assertEqual(self.ask(port, "GET", "/a").split(" ")[1], "200")
        self.assertEqual(self.ask(port, "POST", "/a").split(" ")[1], "401")
        self.end()
        self.assertIn(b"RAW_URI", self.log)

    def test_a_handshake_carries_the_change_accepted_or_refused(self) -> None:
        for name in ("uvicorn-h11", "uvicorn-httptools", "uvicorn-root-path", "hypercorn"):
            port = self.start(name)
            for target, signed, status in (
                ("/ws", "", "101"),
                ("/ws/refused", "", "403"),
                ("/ws", "x", "401"),
                ("/ws", token(target="/wss"), "401"),
            ):
                with self.subTest(name, target=target):
                    head = self.ask(port, "GET", target, UPGRADE, signed)
                    self.assertEqual(head.split(" ")[1], status)
                    self.assertEqual("x-session-set: " in head.lower(), not signed)
            self.end()


if __name__ == "__main__":
    unittest.main()
