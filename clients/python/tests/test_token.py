import asyncio
import base64
import functools
import json
import time
import unittest
from datetime import datetime, timezone
from typing import Any

from session_gateway_upstream import Refused, Settings, SettingsError
from session_gateway_upstream._token import request_digest, strict_base64url
from support import (
    AUDIENCE,
    HEAD,
    HOST,
    KID,
    NOBODY,
    SECRET,
    USER,
    VECTORS,
    b64,
    claims,
    settings,
    signed,
    token,
)

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
ISSUER = VECTORS["inputs"]["issuer"]
REASONS = {
    "payload changed": "signature",
    "alg none": "algorithm",
    "signature empty": "signature",
    "other typ, right key": "algorithm",
    "unknown kid": "unknown-kid",
    "wrong key": "signature",
    "other audience": "audience",
    "expired": "expired",
    "from the future": "not-yet-valid",
    "two headers joined": "malformed",
    "empty": "malformed",
}


def of_vectors(**more: Any) -> Settings:
    return Settings(
        **{
            "keys": {VECTORS["kid"]: "base64:" + VECTORS["secret_b64"]},
            "audience": VECTORS["aud"],
            "issuer": ISSUER,
            **more,
        }
    )


class Base(unittest.TestCase):
    def refused(self, text: str, code: str, **more: Any) -> None:
        with self.assertRaises(Refused) as caught:
            settings().verify(text, **more)
        self.assertEqual(caught.exception.code, f"x-session-{code}")


class Vectors(unittest.TestCase):
    def test_every_good_token_is_read(self) -> None:
        for name, text in VECTORS["good"].items():
            with self.subTest(name):
                found = of_vectors().session(
                    [text], method="GET", hosts=[], targets=[], upgrade=False, now=VECTORS["now"]
                )
                payload = json.loads(base64.urlsafe_b64decode(text.split(".")[1] + "==="))
                self.assertEqual(found.claims, payload)
                self.assertEqual(found.user_id, payload.get("sub"))
                self.assertEqual(found.sid, payload.get("sid"))
                self.assertEqual(found.rev, payload.get("rev"))
                self.assertEqual(found.withheld, payload.get("withheld"))
                if "session" in payload:
                    self.assertEqual(dict(found), payload["session"])
                ends = payload.get("session_exp")
                self.assertEqual(
                    found.expires_at, ends and datetime.fromtimestamp(ends, timezone.utc)
                )

    def test_every_bad_token_is_refused_for_its_own_reason(self) -> None:
        self.assertEqual(set(VECTORS["bad"]), set(REASONS))
        for name, text in VECTORS["bad"].items():
            with self.subTest(name), self.assertRaises(Refused) as caught:
                of_vectors().verify(text, now=VECTORS["now"])
            self.assertEqual(caught.exception.code, f"x-session-{REASONS[name]}")

    def test_two_joined_fields_are_told_as_two(self) -> None:
        text = VECTORS["bad"]["two headers joined"]
        with self.assertRaises(Refused) as caught:
            of_vectors().session(
                [text], method="GET", hosts=[], targets=[], upgrade=False, now=VECTORS["now"]
            )
        self.assertEqual(caught.exception.code, "x-session-twice")

    def test_the_digest_of_a_request_is_that_of_the_vectors(self) -> None:
        asked = VECTORS["req"]
        found = of_vectors().verify(VECTORS["good"]["user"], now=VECTORS["now"])
        self.assertEqual(request_digest(asked["method"], asked["host"], asked["target"]), found.req)

    def test_a_token_of_the_gateways_own_key_is_good_with_the_public_key_only(self) -> None:
        eddsa = VECTORS["eddsa"]
        public_keys = {key["kid"]: key["x"] for key in eddsa["jwks"]["keys"]}
        kid, x = next(iter(public_keys.items()))
        found = of_vectors(keys=None, public_keys=public_keys)
        self.assertEqual(found.verify(eddsa["token"], now=VECTORS["now"]).sub, "42")
        asked = of_vectors(keys=None, public_keys=public_keys.get)
        self.assertEqual(asked.verify(eddsa["token"], now=VECTORS["now"]).sub, "42")

        head, body, signature = eddsa["token"].split(".")
        bad = {
            "signature": f"{head}.{body}.{signature[:-2]}AA",
            "unknown-kid": eddsa["token"],
            # Who knows the public key must not be able to sign with it.
            "algorithm": signed({**HEAD, "kid": kid}, claims(), x),
        }
        for code, text in bad.items():
            keys = {"other": x} if code == "unknown-kid" else public_keys
            with self.subTest(code), self.assertRaises(Refused) as caught:
                of_vectors(keys=None, public_keys=keys).verify(text, now=VECTORS["now"])
            self.assertEqual(caught.exception.code, f"x-session-{code}")

    def test_a_secret_never_checks_a_token_that_says_eddsa(self) -> None:
        with self.assertRaises(Refused) as caught:
            settings().verify(signed({**HEAD, "alg": "EdDSA"}, claims()))
        self.assertEqual(caught.exception.code, "x-session-algorithm")


class Tokens(Base):
    def test_a_token_has_one_spelling_only(self) -> None:
        head, body, signature = token().split(".")
        last = ALPHABET.index(signature[-1])
        # 43 characters are 258 bits, two of them beyond the 256 of the hash.
        for more in (1, 2, 3):
            with self.subTest("bits that no byte holds", more=more):
                self.refused(f"{head}.{body}.{signature[:-1]}{ALPHABET[last ^ more]}", "signature")
        self.refused(f"{head}.{body}.{signature}=", "signature")
        self.refused(f"{head}=.{body}.{signature}", "malformed")
        self.refused(f"{head}.{body}=.{signature}", "malformed")
        self.refused(f"{head}.{body}.{signature}.", "malformed")
        self.refused(f"{head}.{body}", "malformed")
        self.refused(f" {token()}", "malformed")
        self.refused(f"{head}.{body}.\u00e9", "signature")
        self.refused(f"{head}.{body}é.{signature}", "malformed")

    def test_strict_base64url_is_the_inverse_of_its_encoding(self) -> None:
        for length in range(70):
            data = bytes(range(200, 200 + length // 2)) + bytes(length - length // 2)
            text = b64(data)
            self.assertEqual(strict_base64url(text), data if data else None)
            for bad in (text + "=", text + "+", text + "\n", " " + text):
                self.assertIsNone(strict_base64url(bad))
            # What stands for the same bytes, with bits behind them that no byte holds.
            if length % 3:
                spare = ALPHABET.index(text[-1]) + 1
                self.assertIsNone(strict_base64url(text[:-1] + ALPHABET[spare]))

    def test_a_header_of_another_form_is_refused(self) -> None:
        for head, code in (
            ({**HEAD, "alg": "none"}, "algorithm"),
            ({**HEAD, "alg": "hs256"}, "algorithm"),
            ({**HEAD, "alg": ["HS256"]}, "algorithm"),
            ({"kid": KID, "typ": HEAD["typ"]}, "malformed"),
            ({**HEAD, "typ": "JWT"}, "algorithm"),
            ({**HEAD, "crit": ["exp"]}, "malformed"),
            ({**HEAD, "kid": "other"}, "unknown-kid"),
            ({**HEAD, "kid": 1}, "unknown-kid"),
            ({**HEAD, "kid": [KID]}, "unknown-kid"),
            ([HEAD], "malformed"),
            (b"{", "malformed"),
            (b'\xff{"alg":"HS256"}', "malformed"),
            (
                b'{"alg":"HS256","alg":"HS256","kid":"orders-1","typ":"x-session.v1+jwt"}',
                "malformed",
            ),
        ):
            with self.subTest(head):
                self.refused(signed(head, claims()), code)

    def test_claims_of_another_form_are_refused(self) -> None:
        good = claims()
        for name in ("iss", "aud", "iat", "exp", "jti", "req"):
            with self.subTest("without", name=name):
                self.refused(
                    signed(HEAD, {k: v for k, v in good.items() if k != name}), "malformed"
                )
        wrong: dict[str, list[Any]] = {
            "iss": [1, None, [ISSUER]],
            "aud": [None, [AUDIENCE]],
            "iat": [None, "1", 1.5, True],
            "exp": [None, "9999999999", 9999999999.0, True],
            "jti": [None, 1],
            "req": [None, 1],
            "sid": [None, 1],
            "rev": [None, 1],
            "sub": [None, 42],
            "session_exp": [None, "1", 1.5, True, 10**30, -(10**30)],
            "session": [None, [], "x"],
            "user": [None, [], "x"],
            "withheld": ["too_large", None, True],
        }
        for name, values in wrong.items():
            for value in values:
                with self.subTest(name=name, value=value):
                    self.refused(signed(HEAD, {**good, name: value}), "malformed")
        self.refused(signed(HEAD, {k: v for k, v in good.items() if k != "session"}), "malformed")
        text = json.dumps(good)
        for payload in (
            b"[]",
            b"",
            b"null",
            text.encode() + b"x",
            text.replace("{", '{"sub":"1",', 1).encode(),
            text.replace('"session": {', '"session": {"lang":"de",', 1).encode(),
            text.replace('"fr"', "NaN").encode(),
            text.replace('"fr"', "Infinity").encode(),
            text.replace('"fr"', "1e999").encode(),
            text.replace('"fr"', "[" * 20_000 + "]" * 20_000).encode(),
            text.replace("fr", "\u00ff").encode("latin-1"),
        ):
            with self.subTest(payload[:60]):
                self.refused(signed(HEAD, payload), "malformed")

    def test_unknown_claims_are_ignored(self) -> None:
        self.assertEqual(settings().verify(token({**USER, "future": {"a": 1}})).sub, "42")

    def test_a_token_over_64_kib_is_refused(self) -> None:
        long = signed(HEAD, claims({**USER, "session": {"x": "y" * 49_500}}))
        self.assertGreater(len(long), 64 * 1024)
        self.refused(long, "malformed")
        self.assertEqual(
            settings().verify(signed(HEAD, claims({"session": {"x": "y" * 48_000}}))).sub, None
        )

    def test_another_audience_or_issuer_is_refused(self) -> None:
        self.refused(token({**USER, "aud": "billing"}), "audience")
        self.refused(token({**USER, "iss": "https://other.example"}), "issuer")

    def test_the_times_are_kept_within_the_leeway(self) -> None:
        now = int(time.time())
        text = token({**NOBODY, "iat": now, "exp": now + 60})
        for moment, code in (
            (now - 30, None),
            (now - 31, "not-yet-valid"),
            (now + 90, None),
            (now + 90.5, "expired"),
        ):
            if code is None:
                settings().verify(text, now=moment)
            else:
                self.refused(text, code, now=moment)
        strict = settings(leeway=0)
        strict.verify(text, now=now)
        with self.assertRaises(Refused):
            strict.verify(text, now=now - 1)

    def test_nothing_of_a_token_shows_in_errors_and_reprs(self) -> None:
        hidden = "hunter2-in-the-session"
        text = token(
            {**USER, "session": {"password": hidden}, "sub": hidden, "user": {"a": hidden}}
        )
        opened = settings().session([text], method="GET", hosts=[], targets=[], upgrade=False)
        found = settings().verify(text)
        shown = [repr(opened), str(opened), repr(found), repr(settings()), repr(vars(settings()))]
        for bad in (text[:-3] + "AAA", text + ".x", "x" + text):
            with self.assertRaises(Refused) as caught:
                settings().verify(bad)
            shown += [str(caught.exception), repr(caught.exception)]
        for line in shown:
            self.assertNotIn(hidden, line)
            self.assertNotIn(text[:20], line)
            self.assertNotIn(SECRET, line)


class Requests(unittest.TestCase):
    def open(self, text: str, **more: Any) -> None:
        asked = {"method": "POST", "hosts": [HOST], "targets": ["/a?b=1"], "upgrade": False}
        asked.update(more)
        found = settings(check_request=asked.pop("check", "unsafe"))
        for result in (
            lambda: found.session([text], **asked),
            lambda: asyncio.run(found.asession([text], **asked)),
        ):
            result()

    def refused(self, text: str, **more: Any) -> str:
        with self.assertRaises(Refused) as caught:
            self.open(text, **more)
        self.assertEqual(caught.exception.code, "x-session-other-request")
        return str(caught.exception)

    def test_a_token_of_another_request_is_refused_for_unsafe_methods(self) -> None:
        good = token(method="POST", target="/a?b=1")
        self.open(good)
        for more in (
            {"method": "PUT"},
            {"method": "post"},
            {"hosts": ["other.example"]},
            {"hosts": []},
            {"hosts": [HOST, HOST]},
            {"targets": ["/a?b=2"]},
            {"targets": ["/a"]},
            {"targets": ["/\u20ac"]},
        ):
            with self.subTest(more):
                self.refused(good, **more)

    def test_a_server_that_does_not_tell_the_target_gets_a_refusal_that_says_what_to_do(
        self,
    ) -> None:
        good = token(method="POST", target="/a?b=1")
        self.assertIn("do this", self.refused(good, targets=[], hint="do this"))
        self.open(good, targets=[], check="never")

    def test_which_methods_are_compared_is_a_setting(self) -> None:
        other = token(method="GET", target="/other")
        for method in ("GET", "HEAD", "OPTIONS", "TRACE"):
            self.open(other, method=method)
            self.refused(other, method=method, upgrade=True)
            self.refused(other, method=method, check="always")
            self.open(other, method=method, upgrade=True, check="never")
        for method in ("POST", "PUT", "PATCH", "DELETE", "CONNECT", "get", "X"):
            self.refused(other, method=method)
            self.open(other, method=method, check="never")

    def test_no_token_or_more_than_one_is_refused(self) -> None:
        for tokens, code in (([], "missing"), ([token(), token()], "twice")):
            with self.assertRaises(Refused) as caught:
                settings().session(tokens, method="GET", hosts=[HOST], targets=["/"], upgrade=False)
            self.assertEqual(caught.exception.code, f"x-session-{code}")


class Keys(unittest.TestCase):
    def test_a_secret_is_read_as_the_gateway_reads_it(self) -> None:
        raw = bytes(range(1, 33))
        standard = base64.b64encode(raw).decode()
        urlsafe = base64.urlsafe_b64encode(bytes([255] * 32)).decode()
        for written, secret in (
            (SECRET, SECRET.encode()),
            (SECRET + "\n", SECRET.encode()),
            (SECRET + "\n\n", SECRET.encode() + b"\n"),
            (SECRET + "\r\n", SECRET.encode()),
            (SECRET + "\r", SECRET.encode() + b"\r"),
            (SECRET.encode() + b"\n", SECRET.encode()),
            ("é" * 16, "é".encode() * 16),
            ("base64:" + standard, raw),
            ("base64:" + standard.rstrip("=") + "\n", raw),
            (b"base64:" + standard.encode() + b"\n", raw),
            ("base64:" + urlsafe, bytes([255] * 32)),
            ("base64:" + base64.b64encode(bytes([255] * 32)).decode(), bytes([255] * 32)),
        ):
            with self.subTest(written):
                for keys in ({KID: written}, {KID: written}.get):
                    found = settings(keys=keys)._find_key(KID)
                    self.assertEqual(found, secret)

    def test_a_function_may_give_other_keys_later(self) -> None:
        known: dict[str, Any] = {}
        found = settings(keys=known.get)
        with self.assertRaises(Refused) as caught:
            found.verify(token())
        self.assertEqual(caught.exception.code, "x-session-unknown-kid")
        known[KID] = SECRET
        self.assertEqual(found.verify(token()).sub, "42")
        known[KID] = "short"
        with self.assertRaises(SettingsError):
            found.verify(token())

    def test_a_function_is_asked_for_names_of_keys_only(self) -> None:
        asked = []
        found = settings(keys=lambda kid: asked.append(kid))
        for kid in ("../../etc/passwd", "a" * 65, "", "a b", "a\n", "é", "a"):
            with self.assertRaises(Refused):
                found.verify(signed({**HEAD, "kid": kid}, claims()))
        self.assertEqual(asked, ["a"])

    def test_a_mistake_in_the_settings_is_one_sentence_at_the_start(self) -> None:
        x = VECTORS["eddsa"]["jwks"]["keys"][0]["x"]
        for wrong in (
            {"keys": None},
            {"keys": {}},
            {"keys": [SECRET]},
            {"keys": SECRET},
            {"keys": {KID: "too short"}},
            {"keys": {KID: "base64:" + base64.b64encode(b"x" * 31).decode()}},
            {"keys": {KID: "base64:not base64! not base64! not base64!"}},
            {"keys": {KID: b"base64:\xff"}},
            {"keys": {KID: None}},
            {"keys": {KID: 1}},
            {"keys": {"": SECRET}},
            {"keys": {"a/b": SECRET}},
            {"keys": {1: SECRET}},
            {"public_keys": {}},
            {"public_keys": {"gw": "x"}},
            {"public_keys": {"gw": x + "="}},
            {"public_keys": {"gw": None}},
            {"public_keys": {KID: x}},
            {"public_keys": x},
            {"audience": ""},
            {"audience": None},
            {"audience": ["orders"]},
            {"issuer": ""},
            {"leeway": -1},
            {"leeway": "30"},
            {"leeway": float("nan")},
            {"leeway": float("inf")},
            {"leeway": True},
            {"check_request": "sometimes"},
            {"check_request": True},
            {"exempt": "/healthz"},
            {"exempt": ["healthz"]},
            {"exempt": [1]},
        ):
            with self.subTest(wrong), self.assertRaises(SettingsError) as caught:
                settings(**wrong)
            sentence = str(caught.exception)
            self.assertNotIn("\n", sentence)
            self.assertNotIn(SECRET, sentence)

    def test_exempt_is_a_list_of_paths_or_a_function(self) -> None:
        exact = settings(exempt=["/healthz"])
        for path, passes in (
            ("/healthz", True),
            ("/healthz/", False),
            ("/healthz2", False),
            ("/a/healthz", False),
            ("/", False),
        ):
            self.assertIs(exact.is_exempt("GET", path), passes)
        chosen = settings(exempt=lambda method, path: (method, path) == ("GET", "/ready"))
        self.assertTrue(chosen.is_exempt("GET", "/ready"))
        self.assertFalse(chosen.is_exempt("POST", "/ready"))

    def test_only_true_exempts_and_an_async_function_is_a_mistake(self) -> None:
        async def later(_method: str, _path: str) -> bool:
            return False

        class Later:
            async def __call__(self, _method: str, _path: str) -> bool:
                return False

        for wrong in (later, Later(), functools.partial(later)):
            with self.assertRaises(SettingsError):
                settings(exempt=wrong)
        hidden = later("GET", "/")
        for given in (hidden, 1, "yes", None, [True]):
            found = settings(exempt=lambda _method, _path, given=given: given)
            self.assertFalse(found.is_exempt("GET", "/"))
        hidden.close()


if __name__ == "__main__":
    unittest.main()
