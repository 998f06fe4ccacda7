"""The README's programs, as they stand."""

import contextlib
import http.client
import inspect
import json
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import session_gateway_upstream
from session_gateway_upstream import Refused, Settings, aiohttp, asgi, wsgi
from support import (
    AUDIENCE,
    ISSUER,
    KID,
    NOBODY,
    SECRET,
    TOO_LARGE,
    USER,
    sent,
    session,
    settings,
    token,
)
from test_asgi import http as ask_asgi

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
# A whole program, and how to start it.
PROGRAMS = re.findall(
    r"^```python\n([^`]*)^```\n\n```sh\nenv/bin/([^`]*)\n```$", README, re.MULTILINE
)
CART = {"user": "42", "cart": ["book"]}


def run(mark: str) -> dict[str, Any]:
    """The names of the one snippet that has this text in it."""
    (snippet,) = [text for text in SNIPPETS if mark in text]
    names: dict[str, Any] = {"__name__": "snippet"}
    exec(compile(snippet, "README.md", "exec", dont_inherit=True), names)
    return names


def free_port() -> int:
    """One below those that the system gives to whoever asks for any: it stays free."""
    while True:
        port = random.randrange(10_000, 14_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class Program:
    """One that is started as the README says, on a port of its own."""

    def __init__(self, text: str, command: str) -> None:
        self.port = free_port()
        self.text, self.command = text, command.replace("3001", str(self.port))

    @contextlib.contextmanager
    def started(self) -> Iterator[None]:
        program, *arguments = self.command.split()
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "orders.py").write_text(self.text.replace("3001", str(self.port)))
            (Path(folder) / "secrets").mkdir()
            (Path(folder) / "secrets/orders_key").write_text(SECRET + "\n")
            server = subprocess.Popen(
                # Beside this Python, as in env/bin.
                [str(Path(sys.executable).parent / program), *arguments],
                cwd=folder,
                env={
                    **os.environ,
                    "PYTHONPATH": str(Path(session_gateway_upstream.__file__).parents[1]),
                    "PYTHONUNBUFFERED": "1",
                },
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            assert server.stdout is not None
            try:
                said = ""
                while "unning on" not in said:
                    line = server.stdout.readline()
                    assert line, f"{self.command} ended: {said}"
                    said += line
                yield
                assert server.poll() is None, "it has ended"
            finally:
                server.terminate()
                server.communicate()

    def ask(self, method: str, target: str, visitor: Optional[dict[str, Any]]) -> Any:
        """Status, X-Session-Set and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        host = f"127.0.0.1:{self.port}"
        headers = {} if visitor is None else {"X-Session": token(visitor, method, target, host)}
        connection.request(method, target, headers=headers)
        answer = connection.getresponse()
        body, field = answer.read(), answer.getheader("X-Session-Set")
        connection.close()
        told = json.loads(body) if answer.status < 500 else None
        return answer.status, field and json.loads(field), told


class Readme(unittest.TestCase):
    def test_it_speaks_of_the_service_of_these_tests(self) -> None:
        self.assertEqual((AUDIENCE, ISSUER, KID), ("orders", "https://shop.example", "orders-1"))
        self.assertEqual((len(SNIPPETS), len(PROGRAMS)), (11, 5))

    def test_each_program_shows_the_cart_and_survives_a_session_that_is_withheld(self) -> None:
        for text, command in PROGRAMS:
            program = Program(text, command)
            with self.subTest(command, text=text[:200]), program.started():
                missing = {"code": "x-session-missing"}
                self.assertEqual(program.ask("GET", "/orders/", None), (401, None, missing))
                self.assertEqual(program.ask("GET", "/orders/", TOO_LARGE), (500, None, None))
                self.assertEqual(program.ask("GET", "/orders/", USER), (200, None, CART))
                nobody = {"user": None, "cart": []}
                self.assertEqual(program.ask("GET", "/orders/", NOBODY), (200, None, nobody))

    def test_the_program_that_changes_keeps_what_others_have_put_into_the_cart(self) -> None:
        ((text, command),) = [found for found in PROGRAMS if "only_if_unchanged" in found[0]]
        program = Program(text, command)
        with program.started():
            for visitor, answer in (
                (TOO_LARGE, (500, None, None)),
                (
                    USER,
                    (200, {"set": {"cart": ["book", "pen"]}, "if": "rev-1"}, ["book", "pen"]),
                ),
                (NOBODY, (200, {"set": {"cart": ["pen"]}}, ["pen"])),
            ):
                self.assertEqual(program.ask("POST", "/orders/add/pen", visitor), answer)

    def test_the_test_of_a_handler_passes(self) -> None:
        run("def test_a_book")["test_a_book_goes_into_the_cart"]()

    def test_remote_keys_are_keys_for_settings(self) -> None:
        self.assertIsInstance(run("import RemoteKeys")["settings"], Settings)

    def test_the_changes_are_those_that_the_text_says(self) -> None:
        names = run("def log_out")
        for name, field in (
            ("log_in_again", {"cycle": True, "set": {"checkout": "confirmed"}}),
            ("log_out", {"flush": True, "set": {"goodbye": True}}),
            ("start_again", {"set": {"language": "fr"}}),
            ("keep", {"expiry": 3600}),
        ):
            opened = session(USER)
            names[name](opened)
            self.assertEqual(sent(opened), field)

    def test_withheld_contents_are_caught(self) -> None:
        cart_of = run("def cart_of")["cart_of"]
        self.assertEqual(cart_of(session(USER)), ["book"])
        self.assertIsNone(cart_of(session(TOO_LARGE)))

    def test_keys_are_read_anew_when_they_change(self) -> None:
        names = run("def key(kid)")
        with tempfile.TemporaryDirectory() as folder:
            names["FOLDER"] = Path(folder)
            found = names["settings"]
            with self.assertRaises(Refused):
                found.verify(token())
            (Path(folder) / KID).write_text(SECRET + "\n", encoding="ascii")
            self.assertEqual(found.verify(token()).sub, "42")

    def test_a_refused_request_goes_to_the_front_door(self) -> None:
        app = run("to_the_front_door")["protect"](None, settings())
        with self.assertLogs("session_gateway_upstream", "WARNING"):
            gone = ask_asgi(app, tokens=[])
        self.assertEqual(gone[0]["status"], 303)

    def test_every_code_that_can_be_told_is_in_the_table(self) -> None:
        source = Path(session_gateway_upstream.__file__).parent
        found = set()
        for path in source.glob("*.py"):
            found |= set(re.findall(r'"(x-session-[a-z-]+)"', path.read_text(encoding="utf-8")))
        found.remove("x-session-set")
        listed = set(re.findall(r"`(x-session-[a-z-]+)`", README.split("## Errors")[1]))
        self.assertEqual(found, listed)

    def test_every_setting_is_in_a_table(self) -> None:
        for function in (Settings, asgi.SessionMiddleware, wsgi.SessionMiddleware, aiohttp.setup):
            for name in set(inspect.signature(function).parameters) - {"app", "settings"}:
                self.assertIn(f"\n| `{name}`", README)


if __name__ == "__main__":
    unittest.main()
