import asyncio
import contextlib
import datetime
import gc
import ipaddress
import json
import logging
import os
import socketserver
import ssl
import tempfile
import threading
import unittest
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable, Optional
from unittest import mock

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from session_gateway_upstream import Settings, SettingsError
from session_gateway_upstream.jwks import RemoteKeys
from support import VECTORS

JWKS = VECTORS["eddsa"]["jwks"]
KID, X = JWKS["keys"][0]["kid"], JWKS["keys"][0]["x"]


class Gateway:
    """A JWK set that can be changed, a clock that can be moved, and how often it was asked."""

    def __init__(self, test: unittest.TestCase, tls: Optional[ssl.SSLContext] = None) -> None:
        self.status = 200
        self.body = json.dumps(JWKS).encode()
        self.location = "/elsewhere"
        self.asked: list[str] = []
        self.now = 0.0
        self.entered = threading.Event()
        self.open = threading.Event()
        self.open.set()
        # What the clock has moved on by when it is asked.
        self.takes = 0.0
        # Where in the answer it begins to drip. Not for ever, so that a test can fail.
        self.drips_from: Optional[int] = None
        self.ended = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                outer.now += outer.takes
                outer.entered.set()
                outer.open.wait()
                if outer.drips_from is not None:
                    head = f"HTTP/1.0 200 OK\r\nContent-Length: {len(outer.body)}\r\n\r\n"
                    drip(self.wfile, head.encode() + outer.body, outer.drips_from, outer.ended)
                    return
                elsewhere = self.path == outer.location
                self.send_response(200 if elsewhere else outer.status)
                self.send_header("Location", outer.location)
                self.end_headers()
                self.wfile.write(json.dumps(JWKS).encode() if elsewhere else outer.body)

            def log_message(self, *_arguments: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_arguments: Any) -> None:
                """Say nothing: clients that hang up are meant to."""

        server = Server(("127.0.0.1", 0), Handler)
        if tls is not None:
            server.socket = tls.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        test.addCleanup(lambda: (server.shutdown(), thread.join(), server.server_close()))
        test.addCleanup(self.ended.set)
        test.addCleanup(self.open.set)
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{server.server_port}/.well-known/jwks.json"
        self.keys = RemoteKeys(self.url, clock=lambda: self.now)

    def ways(self) -> tuple[Callable[[str], Optional[str]], ...]:
        return (lambda kid: asyncio.run(_of(self.keys, kid)), self.keys.blocking)


def drip(to: Any, text: bytes, start: int, ended: threading.Event) -> None:
    """Send byte by byte from `start` on: no single read takes long."""
    to.write(text[:start])
    for at in range(start, start + 200):
        to.write(text[at : at + 1])
        if ended.wait(0.01):
            return
    to.write(text[start + 200 :])


def limit(seconds: float) -> Any:
    """A shorter time for a fetch."""
    return mock.patch("session_gateway_upstream.jwks._TIMEOUT_SECONDS", seconds)


@contextlib.contextmanager
def nothing_left(test: unittest.TestCase) -> Iterator[None]:
    """No socket that nobody has closed, and no timer that runs."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", ResourceWarning)
        yield
        gc.collect()
    test.assertEqual([str(warning.message) for warning in told], [])
    test.assertFalse([t for t in threading.enumerate() if isinstance(t, threading.Timer)])


def certificate(names: list[x509.GeneralName]) -> tuple[bytes, bytes]:
    """One that is signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gateway")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    kind = serialization.Encoding.PEM
    secret = key.private_bytes(
        kind, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return made.public_bytes(kind), secret


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

    def test_an_answer_that_drips_is_given_up_as_a_whole(self) -> None:
        for way in (0, 1):
            for start in (1, 30, 60):  # the status line, a field, the body
                gateway = Gateway(self)
                gateway.drips_from = start
                with self.subTest(way=way, start=start):
                    with limit(0.3), self.assertRaisesRegex(TimeoutError, "not answered within"):
                        gateway.ways()[way](KID)
                    gateway.drips_from = None
                    with self.assertRaisesRegex(ConnectionError, "could not be fetched"):
                        gateway.ways()[way](KID)
                    gateway.now += 5
                    self.assertEqual(gateway.ways()[way](KID), X)

    def test_a_tls_handshake_that_drips_is_given_up_as_a_whole(self) -> None:
        ended = threading.Event()

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                drip(self.wfile, b"\x16\x03\x03\x3f\xff" + bytes(10_000), 0, ended)

        class Server(socketserver.ThreadingTCPServer):
            def handle_error(self, *_arguments: Any) -> None:
                """Say nothing: clients that hang up are meant to."""

        with Server(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, args=[0.01])
            thread.start()
            try:
                keys = RemoteKeys(f"https://127.0.0.1:{server.server_address[1]}/")
                with limit(0.3), self.assertRaisesRegex(TimeoutError, "not answered within"):
                    keys.blocking(KID)
            finally:
                ended.set()
                server.shutdown()
                thread.join()

    def test_no_thread_and_no_socket_is_left_after_a_fetch(self) -> None:
        gateway = Gateway(self)
        for dripping in (None, 60):
            gateway.drips_from = dripping
            gateway.now += 500
            with nothing_left(self), limit(0.3), contextlib.suppress(TimeoutError):
                gateway.keys.blocking(KID)

    def test_only_a_certificate_that_is_trusted_and_of_this_host_is_taken(self) -> None:
        here = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        for trusted, names, taken in (
            (True, [here], True),
            (False, [here], False),
            (True, [x509.DNSName("elsewhere.example")], False),
        ):
            with (
                tempfile.TemporaryDirectory() as folder,
                self.subTest(trusted=trusted, names=names),
            ):
                chain, key = certificate(names)
                other, _ = certificate(names)
                paths = [os.path.join(folder, name) for name in ("chain", "key", "trusted")]
                for path, text in zip(paths, (chain, key, chain if trusted else other)):
                    with open(path, "wb") as file:
                        file.write(text)
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(*paths[:2])
                gateway = Gateway(self, context)
                with mock.patch.dict("os.environ", {"SSL_CERT_FILE": paths[2]}):
                    if taken:
                        self.assertEqual(gateway.keys.blocking(KID), X)
                    else:
                        with nothing_left(self), self.assertRaises(ssl.SSLCertVerificationError):
                            gateway.keys.blocking(KID)
                        self.assertEqual(gateway.asked, [])

    def test_the_request_is_that_of_the_url(self) -> None:
        gateway = Gateway(self)
        for path in ("/", "/a/b?c=d&e", "/?c"):
            base = gateway.url[: -len("/.well-known/jwks.json")]
            self.assertEqual(RemoteKeys(base + path + "#part").blocking(KID), X)
            self.assertEqual(gateway.asked.pop(), path)
        self.assertEqual(RemoteKeys(base).blocking(KID), X)
        self.assertEqual(RemoteKeys(base + "?c").blocking(KID), X)
        self.assertEqual(gateway.asked, ["/", "/?c"])

    def test_threads_that_wait_for_a_slow_fetch_do_not_each_try_again(self) -> None:
        gateway = Gateway(self)
        # As long as the pause: five seconds.
        gateway.takes = 5
        gateway.status = 500
        gateway.open.clear()
        found: list[Any] = []

        def ask() -> None:
            try:
                gateway.keys.blocking(KID)
            except OSError as error:
                found.append(str(error))

        threads = [threading.Thread(target=ask) for _ in range(5)]
        for thread in threads:
            thread.start()
        gateway.entered.wait()
        gateway.open.set()
        for thread in threads:
            thread.join()
        self.assertEqual(len(found), 5)
        self.assertEqual(len(gateway.asked), 1)
        gateway.now += 4.9
        ask()
        self.assertEqual(len(gateway.asked), 1)
        gateway.now += 0.1
        ask()
        self.assertEqual(len(gateway.asked), 2)

    def test_a_loop_fetches_again_after_a_fetch_that_failed(self) -> None:
        gateway = Gateway(self)

        async def often() -> None:
            gateway.status = 500
            with self.assertRaisesRegex(ConnectionError, "answered with 500"):
                await gateway.keys(KID)
            with self.assertRaisesRegex(ConnectionError, "could not be fetched"):
                await gateway.keys(KID)
            gateway.status = 200
            gateway.now += 5
            self.assertEqual(await gateway.keys(KID), X)
            gateway.now += 300
            self.assertEqual(await gateway.keys(KID), X)

        asyncio.run(often())
        self.assertEqual(len(gateway.asked), 3)

    def test_a_loop_that_is_closed_during_a_fetch_ends_it_for_nobody(self) -> None:
        gateway = Gateway(self)
        gateway.open.clear()
        loop = asyncio.new_event_loop()
        # That a task is left behind is what this is about.
        loop.set_exception_handler(lambda *_: None)
        quiet = mock.patch.object(logging.getLogger("concurrent.futures"), "disabled", True)
        quiet.start()
        self.addCleanup(quiet.stop)
        task = loop.create_task(_of(gateway.keys, KID))
        loop.run_until_complete(loop.run_in_executor(None, gateway.entered.wait))
        loop.close()
        gateway.open.set()
        self.assertEqual(asyncio.run(_of(gateway.keys, KID)), X)
        self.assertEqual(asyncio.run(_of(gateway.keys, KID)), X)
        self.assertFalse(task.done())

    def test_a_loop_does_not_wait_for_the_task_of_another(self) -> None:
        gateway = Gateway(self)
        gateway.open.clear()
        found: list[Any] = []

        def first() -> None:
            found.append(asyncio.run(_of(gateway.keys, KID)))

        async def second() -> Any:
            task = asyncio.create_task(_of(gateway.keys, KID))
            # Now it waits for the fetch, and the first loop does so too.
            await asyncio.sleep(0)
            gateway.open.set()
            return await task

        thread = threading.Thread(target=first)
        thread.start()
        gateway.entered.wait()
        try:
            self.assertEqual(asyncio.run(second()), X)
        finally:
            gateway.open.set()
            thread.join()
        self.assertEqual(found, [X])
        self.assertEqual(len(gateway.asked), 1)

    def test_what_is_no_address_is_told_at_once(self) -> None:
        for wrong in (
            "",
            "file:///etc/passwd",
            "ftp://a/b",
            "gateway",
            "http://",
            None,
            1,
            "http://[::1",
            "http://[x]/",
            "http://a:b/",
            "http://a:65536/",
            "http://a b/",
            "http://a/b c",
            "http://a/b\r\nc: d",
            "http://a/\u00e9",
            "http://user:word@a/",
        ):
            with self.subTest(wrong=wrong), self.assertRaises(SettingsError):
                RemoteKeys(wrong)  # type: ignore[arg-type]


if __name__ == "__main__":
    unittest.main()
