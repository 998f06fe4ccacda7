"""The README's programs, as they stand."""

import asyncio
import inspect
import json
import re
import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

from aiohttp import ClientSession
from aiohttp.test_utils import TestServer

import session_gateway_upstream
from session_gateway_upstream import Refused, Settings, aiohttp, asgi, wsgi
from support import AUDIENCE, ISSUER, KID, SECRET, TOO_LARGE, USER, sent, session, settings, token
from test_asgi import http
from test_wsgi import ask

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
CART = {"user": "42", "cart": ["book"]}


def run(mark: str) -> dict[str, Any]:
    """The names of the one snippet that has this text in it."""
    (snippet,) = [text for text in SNIPPETS if mark in text]
    names: dict[str, Any] = {"__name__": "snippet"}
    with mock.patch.dict("os.environ", {"ORDERS_KEY": SECRET}):
        exec(compile(snippet, "README.md", "exec", dont_inherit=True), names)
    return names


class Readme(unittest.TestCase):
    def test_it_speaks_of_the_service_of_these_tests(self) -> None:
        self.assertEqual((AUDIENCE, ISSUER, KID), ("orders", "https://shop.example", "orders-1"))
        self.assertEqual(len(SNIPPETS), 8)

    def test_the_starlette_and_fastapi_programs_show_the_cart(self) -> None:
        for mark in ("import Starlette", "import FastAPI"):
            app = run(mark)["app"]
            gone = http(app, target="/cart")
            self.assertEqual((gone[0]["status"], json.loads(gone[1]["body"])), (200, CART))
            with self.assertLogs("session_gateway_upstream", "WARNING"):
                self.assertEqual(http(app, target="/cart", tokens=[])[0]["status"], 401)
        app = run("import Starlette")["app"]
        self.assertEqual(http(app, target="/healthz", tokens=[])[0]["status"], 200)

    def test_the_aiohttp_program_shows_the_cart(self) -> None:
        async def ask_it() -> Any:
            app = run("aiohttp import setup")["app"]
            async with TestServer(app) as server, ClientSession() as client:
                url = server.make_url("/cart")
                async with client.get(url, headers={"X-Session": token()}) as answer:
                    return await answer.json()

        self.assertEqual(asyncio.run(ask_it()), CART)

    def test_the_flask_program_shows_the_cart(self) -> None:
        self.assertEqual(json.loads(ask(run("import Flask")["app"], target="/cart").body), CART)

    def test_the_changes_are_those_that_the_text_says(self) -> None:
        names = run("def buy")
        for name, arguments, field in (
            ("buy", ["pen"], {"set": {"cart": ["book", "pen"], "last": "pen"}}),
            ("log_in_again", [], {"cycle": True, "set": {"checkout": "confirmed"}}),
            ("log_out", [], {"flush": True, "set": {"goodbye": True}}),
            ("count", [], {"set": {"visits": 1}, "if": "rev-1"}),
            ("keep", [], {"expiry": 3600}),
        ):
            opened = session(USER)
            names[name](opened, *arguments)
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
            gone = http(app, tokens=[])
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
