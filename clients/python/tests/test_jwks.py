import asyncio
import json
import threading
import unittest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable, Optional
from unittest import mock

from session_gateway_upstream import Settings, SettingsError
from session_gateway_upstream.jwks import RemoteKeys
from support import VECTORS

JWKS = VECTORS["eddsa"]["jwks"]
KID, X = JWKS["keys"][0]["kid"], JWKS["keys"][0]["x"]


class Gateway:
    """A JWK set that can be changed, a clock that can be moved, and how often it was asked."""

    def __init__(self, test: unittest.TestCase) -> None:
        self.status = 200
        self.body = json.dumps(JWKS).encode()
        self.location = "/elsewhere"
        self.asked: list[str] = []
        self.now = 0.0
        self.entered = threading.Event()
        self.open = threading.Event()
        self.open.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                outer.entered.set()
                outer.open.wait()
                elsewhere = self.path == outer.location
                self.send_response(200 if elsewhere else outer.status)
                self.send_header("Location", outer.location)
                self.end_headers()
                self.wfile.write(json.dumps(JWKS).encode() if elsewhere else outer.body)

            def log_message(self, *_arguments: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        test.addCleanup(lambda: (server.shutdown(), thread.join(), server.server_close()))
        self.url = f"http://127.0.0.1:{server.server_port}/.well-known/jwks.json"
        self.keys = RemoteKeys(self.url, clock=lambda: self.now)

    def ways(self) -> tuple[Callable[[str], Optional[str]], ...]:
        return (lambda kid: asyncio.run(_of(self.keys, kid)), self.keys.blocking)


async def _of(keys: RemoteKeys, kid: str) -> Optional[str]:
    return await keys(kid)


class Remote(unittest.TestCase):
    def test_a_token_is_checked_with_the_gateways_jwk_set(self) -> None:
        common = {"audience": VECTORS["aud"], "issuer": VECTORS["inputs"]["issuer"]}
        text, now = VECTORS["eddsa"]["token"], VECTORS["now"]
        keys = Gateway(self).keys
        found = asyncio.run(Settings(public_keys=keys, **common).averify(text, now=now))
        self.assertEqual(found.sub, "42")
        self.assertEqual(
            Settings(public_keys=keys.blocking, **common).verify(text, now=now).sub, "42"
        )
        with self.assertRaises(SettingsError):
            Settings(public_keys=keys, **common).must_be_sync()

    def test_keys_are_kept_for_five_minutes(self) -> None:
        for way in (0, 1):
            gateway = Gateway(self)
            find = gateway.ways()[way]
            self.assertEqual([find(KID), find(KID)], [X, X])
            gateway.now = 299.9
            self.assertEqual(find(KID), X)
            self.assertEqual(gateway.asked, ["/.well-known/jwks.json"])
            gateway.now = 300
            gateway.body = b'{"keys":[]}'
            self.assertIsNone(find(KID))
            self.assertEqual(len(gateway.asked), 2)

    def test_no_proxy_of_the_environment_is_asked(self) -> None:
        with mock.patch.dict("os.environ", {"http_proxy": "http://127.0.0.1:1", "no_proxy": ""}):
            self.assertEqual(Gateway(self).keys.blocking(KID), X)

    def test_a_new_kid_is_looked_for_but_not_at_each_request(self) -> None:
        for way in (0, 1):
            gateway = Gateway(self)
            find = gateway.ways()[way]
            self.assertIsNone(find("new"))
            good = JWKS["keys"][0]
            others: list[Any] = [{**good, "kid": "x/y"}, {**good, "kid": "n", "x": 1}, None]
            others += [{**good, "kid": "c", "crv": "Ed448"}, {"kty": "RSA", "kid": "other"}]
            gateway.body = json.dumps({"keys": [*others, {**good, "kid": "new"}]}).encode()
            gateway.now = 4.9
            for made_up in ("new", "a", "b"):
                self.assertIsNone(find(made_up))
            self.assertEqual(len(gateway.asked), 1)
            gateway.now = 5
            self.assertEqual(find("new"), X)
            for none in ("x/y", "n", "c", "other", KID):
                self.assertIsNone(find(none))
            self.assertEqual(len(gateway.asked), 2)

    def test_without_a_good_jwk_set_there_is_no_key(self) -> None:
        for way in (0, 1):
            gateway = Gateway(self)
            find = gateway.ways()[way]
            large = json.dumps(JWKS).encode() + b" " * 70_000
            for status, body in (
                (302, b""),
                (500, json.dumps(JWKS).encode()),
                (203, json.dumps(JWKS).encode()),
                (200, b"no JSON"),
                (200, b"{}"),
                (200, b"[]"),
                (200, large),
            ):
                gateway.status, gateway.body = status, body
                gateway.now += 10
                with self.subTest(status=status, body=body[:20]):
                    with self.assertRaises((OSError, ValueError)):
                        find(KID)
                    with self.assertRaisesRegex(ConnectionError, "could not be fetched"):
                        find(KID)
            self.assertEqual(set(gateway.asked), {"/.well-known/jwks.json"})
            self.assertEqual(len(gateway.asked), 7)
            gateway.status, gateway.body = 200, json.dumps(JWKS).encode()
            gateway.now += 5
            self.assertEqual(find(KID), X)

    def test_many_requests_at_once_ask_once_and_one_that_leaves_ends_it_for_nobody(self) -> None:
        gateway = Gateway(self)
        gateway.open.clear()

        async def all_of_them() -> Any:
            tasks = [asyncio.create_task(_of(gateway.keys, KID)) for _ in range(50)]
            await asyncio.to_thread(gateway.entered.wait)
            tasks[0].cancel()
            await asyncio.sleep(0)
            gateway.open.set()
            return await asyncio.gather(*tasks, return_exceptions=True)

        found = asyncio.run(all_of_them())
        self.assertIsInstance(found[0], asyncio.CancelledError)
        self.assertEqual(set(found[1:]), {X})
        self.assertEqual(len(gateway.asked), 1)

    def test_many_threads_at_once_ask_once(self) -> None:
        gateway = Gateway(self)
        gateway.open.clear()
        found: list[Any] = []
        threads = [
            threading.Thread(target=lambda: found.append(gateway.keys.blocking(KID)))
            for _ in range(20)
        ]
        for thread in threads:
            thread.start()
        gateway.open.set()
        for thread in threads:
            thread.join()
        self.assertEqual(found, [X] * 20)
        self.assertEqual(len(gateway.asked), 1)

    def test_what_is_no_address_is_told_at_once(self) -> None:
        for wrong in ("", "file:///etc/passwd", "ftp://a/b", "gateway", "http://", None, 1):
            with self.assertRaises(SettingsError):
                RemoteKeys(wrong)  # type: ignore[arg-type]


if __name__ == "__main__":
    unittest.main()
