"""A visitor of examples/shop: shop.py CHROMIUM BASE PICTURES.

Each page must show the one session that `Visitor` expects, after each step.
"""

import contextlib
import http.server
import json
import sys
import threading
from pathlib import Path

from browser import Browser

SERVICES = {"Django": "/", "Starlette": "/starlette/", "aiohttp": "/aiohttp/", "Express": "/express/", "Go": "/go/"}
PRODUCTS = {
    "Django": "paperback",
    "Starlette": "telescope",
    "aiohttp": "kettle",
    "Express": "café crème",
    "Go": "plush gopher",
}
ROWS = """Object.fromEntries(
    [...document.querySelectorAll("tr")].map(row => [...row.children].map(cell => cell.innerText))
)"""


class Visitor:
    """Goes through the shop, and knows what must be in the session and who is logged in."""

    def __init__(self, browser, base):
        self.browser, self.base = browser, base
        self.session, self.user = {}, None

    def open(self, service):
        """By the address bar."""
        self.browser.open(self.base + SERVICES[service])
        self.is_at(service)

    def go(self, service):
        """By the bar at the top of the page."""
        self.browser.press(service)
        self.is_at(service)

    def press(self, service, label):
        """A button, which leads back to the same page."""
        self.browser.press(label)
        self.is_at(service)

    def is_at(self, service):
        """Checks the page; that it was shown is a visit."""
        counter = f"visits_{service.lower()}"
        self.session[counter] = self.session.get(counter, 0) + 1
        text = self.browser.text()
        assert self.browser.address() == self.base + SERVICES[service], self.browser.address()
        assert f"This page comes from {service}." in text, text
        assert ("Nobody is logged in." in text) == (self.user is None), text
        assert self.user is None or f"Logged in as {self.user}." in text, text
        shown = {name: json.loads(value) for name, value in self.browser.evaluate(ROWS).items()}
        assert shown == self.session, f"{service} shows {shown} in the place of {self.session}"

    def everywhere(self):
        """All services show the same."""
        for service in SERVICES:
            self.go(service)

    def log_in(self, service):
        """From this service, over Django's login page, and back to it."""
        self.browser.press("Log in")
        self.browser.fill("username", "demo")
        self.browser.fill("password", "demo")
        self.browser.press("Log in")
        self.user = "demo"
        self.is_at(service)

    def log_out(self, service):
        self.session, self.user = {}, None
        self.press(service, "Log out")

    def cookie(self):
        """The session cookie."""
        cookies = self.browser.call("Network.getCookies", urls=[self.base])["cookies"]
        return next(cookie["value"] for cookie in cookies if cookie["name"] == "sessionid")

    def brings_back(self, cookie):
        """Sends the cookie of a session that was logged out."""
        self.browser.call("Network.setCookie", name="sessionid", value=cookie, url=self.base)


def walk(visitor, pictures):
    begins_and_logs_in(visitor, pictures)
    changes_it_in_each(visitor)
    for service in SERVICES:
        visitor.go(service)
        picture(visitor.browser, pictures, service.lower())
    done("pictures taken")
    empties_the_cart_in_each(visitor)
    is_led_to_forms_of_others(visitor)
    logs_out_of_each(visitor)


def begins_and_logs_in(visitor, pictures):
    """A session that a service began, without a login, is Django's too, and the login keeps it."""
    visitor.open("Starlette")
    visitor.everywhere()
    picture(visitor.browser, pictures, "nobody")
    visitor.go("Django")
    visitor.browser.press("Log in")
    visitor.browser.fill("username", "demo")
    visitor.browser.fill("password", "wrong")
    visitor.browser.press("Log in")
    assert "not the right name or password" in visitor.browser.text()
    picture(visitor.browser, pictures, "login")
    visitor.open("Django")
    visitor.log_in("Django")
    visitor.everywhere()
    done("logged in")


def changes_it_in_each(visitor):
    """What one changes, all see."""
    languages = {"Django": "fr", "Starlette": "en", "aiohttp": "de", "Express": "fr", "Go": "de"}
    buttons = {"en": "English", "de": "Deutsch", "fr": "Français"}
    for service, language in languages.items():
        visitor.go(service)
        visitor.session.setdefault("cart", []).append(PRODUCTS[service])
        visitor.press(service, f"Add a {PRODUCTS[service]}")
        visitor.session["language"] = language
        visitor.press(service, buttons[language])
        button = "Yes, wrap it" if visitor.session.get("gift") else "No, as it is"
        visitor.session["gift"] = not visitor.session.get("gift", False)
        visitor.press(service, button)
        visitor.everywhere()
        done(f"changed in {service}")


def empties_the_cart_in_each(visitor):
    for service, product in PRODUCTS.items():
        visitor.go(service)
        del visitor.session["cart"]
        visitor.press(service, "Empty the cart")
        visitor.everywhere()
        visitor.go(service)
        visitor.session["cart"] = [product]
        visitor.press(service, f"Add a {product}")
    done("emptied everywhere")


def is_led_to_forms_of_others(visitor):
    """A form of another origin changes nothing: Django asks for its token, the gateway for the services' own pages."""
    for service, path in SERVICES.items():
        form = f'<form method="post" action="{visitor.base}{path}"><button name="do" value="empty">Win</button></form>'
        with elsewhere(form) as page:
            visitor.browser.open(page)
            visitor.browser.press("Win", expected=403)
        visitor.open(service)
    done("nothing changed by others")


def logs_out_of_each(visitor):
    """A logout at one is a logout everywhere, for good."""
    for service in SERVICES:
        visitor.go(service)
        if visitor.user is None:
            visitor.log_in(service)
        ended = visitor.cookie()
        visitor.log_out(service)
        assert visitor.cookie() != ended
        visitor.everywhere()
        visitor.brings_back(ended)
        visitor.session = {}
        visitor.everywhere()
        done(f"logged out of {service}")


def done(step):
    print(step, flush=True)


def picture(browser, pictures, name):
    """In light and dark, on a desk and on a phone."""
    for where, width, dark in (
        ("light", 900, False),
        ("dark", 900, True),
        ("phone", 360, False),
        ("phone-dark", 360, True),
    ):
        browser.screenshot(pictures / f"{name}-{where}.png", width, dark)


@contextlib.contextmanager
def elsewhere(html):
    """A page of another origin."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/" else 204)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(html.encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


chromium, base, pictures = sys.argv[1:]
Path(pictures).mkdir(parents=True, exist_ok=True)
with Browser(chromium) as browser:
    walk(Visitor(browser, base), Path(pictures))
