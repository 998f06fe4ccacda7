import unittest
from typing import Any

from fastapi import FastAPI

from session_gateway_upstream import BadSessionChange, SessionWithheld
from session_gateway_upstream.fastapi import CurrentSession, get_session
from session_gateway_upstream.testing import change_of, make_session
from test_asgi import http


class Testing(unittest.TestCase):
    def test_a_session_is_made_of_the_claims_that_matter(self) -> None:
        session = make_session({"sub": "42", "user": {"a": 1}, "session": {"cart": ["book"]}})
        self.assertEqual((session.user_id, session.user), ("42", {"a": 1}))
        self.assertEqual(dict(session), {"cart": ["book"]})
        self.assertIsNone(change_of(session))
        session["cart"].append("pen")
        self.assertEqual(change_of(session), {"set": {"cart": ["book", "pen"]}})
        self.assertIsNone(change_of(session, 500))
        session["lang"] = "fr"
        self.assertEqual(change_of(session), {"set": {"cart": ["book", "pen"], "lang": "fr"}})
        session["large"] = "x" * 20_000
        with self.assertRaises(BadSessionChange):
            change_of(session)

    def test_without_claims_it_is_that_of_nobody(self) -> None:
        session = make_session({})
        self.assertEqual((session.user_id, session.sid, dict(session)), (None, None, {}))

    def test_contents_can_be_withheld(self) -> None:
        session = make_session({"sub": "42", "withheld": "too_large"})
        self.assertEqual(session.user_id, "42")
        with self.assertRaises(SessionWithheld):
            session.get("cart")

    def test_it_can_be_the_session_of_fastapis_handlers(self) -> None:
        app = FastAPI()

        @app.get("/")
        async def show(session: CurrentSession) -> Any:
            return session.user_id

        session = make_session({"sub": "42"})
        app.dependency_overrides[get_session] = lambda: session
        self.assertEqual(http(app)[1]["body"], b'"42"')

    def test_claims_that_no_token_has_are_a_mistake(self) -> None:
        for wrong in (
            {"sub": 42},
            {"session": []},
            {"session": {}, "withheld": "off"},
            {"session": {"a": float("nan")}},
        ):
            with self.assertRaises(ValueError):
                make_session(wrong)


if __name__ == "__main__":
    unittest.main()
