"""An upstream as its developer would write it: checks X-Session with PyJWT, answers JSON, changes the session.

    upstream.py AUDIENCE ISSUER KID        the secret comes from the environment: UPSTREAM_SECRET

Prints `control on ADDRESS`, then `listening on ADDRESS`. It ends when its standard input does.

It answers with what it saw: method, target, header fields in their order, body, and the claims of the token or why it
refused it. Fields of the request say what else to do:

    X-Test-Set       the value of X-Session-Set
    X-Test-Status    the status
    X-Test-Wait-For  wait until POST /release/NAME reaches the control address; GET /arrived/NAME there answers as soon
                     as a request waits

POST /secrets and POST /jwks at the control address replace the keys that it accepts: a JSON object of secrets by kid,
a JWK set. It keeps a JWK set until it is given another, like a receiver whose cache is as long as it may be.
"""

import base64
import hashlib
import json
import os
import sys
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt

AUDIENCE, ISSUER, KID = sys.argv[1:4]
# By kid. The key says the algorithm, never the token.
secrets = {KID: os.environ["UPSTREAM_SECRET"]}
public_keys = {}
# Longer than any test waits.
PATIENCE_SECONDS = 60

arrived = defaultdict(threading.Event)
released = defaultdict(threading.Event)


def claims(method, host, target, tokens):
    """The claims of the one token, checked as the contract says; ValueError or a PyJWT error says what is wrong."""
    if len(tokens) != 1:
        raise ValueError(f"{len(tokens)} X-Session fields")
    head = jwt.get_unverified_header(tokens[0])
    if head["typ"] != "x-session.v1+jwt":
        raise ValueError(f"typ {head['typ']}")
    kid = head["kid"]
    key, algorithm = (secrets[kid], "HS256") if kid in secrets else (public_keys[kid], "EdDSA")
    found = jwt.decode(
        tokens[0],
        key,
        algorithms=[algorithm],
        audience=AUDIENCE,
        issuer=ISSUER,
        leeway=30,
        options={"require": ["exp", "iat", "iss", "aud"]},
    )
    digest = hashlib.sha256(f"{method} {host} {target}".encode("latin-1")).digest()
    if found["req"] != base64.urlsafe_b64encode(digest).rstrip(b"=").decode():
        raise ValueError("req is of another request")
    return found


class Handler(BaseHTTPRequestHandler):
    """What both addresses share: HTTP/1.1 with keep-alive, JSON answers, nothing on standard error."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    # One write an answer.
    wbufsize = -1

    def answer(self, status, value, fields=()):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, field in fields:
            self.send_header(name, field)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args):
        pass


    def read_body(self):
        if self.headers["Transfer-Encoding"] != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"] or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return body


class Upstream(Handler):
    """The upstream itself."""

    def handle_any(self):
        target = self.requestline.split(" ")[1]
        body = self.read_body()
        seen = {"method": self.command, "target": target, "fields": self.headers.items(), "body": body.decode("latin-1")}
        try:
            tokens = self.headers.get_all("X-Session", [])
            seen["claims"] = claims(self.command, self.headers["Host"], target, tokens)
        except Exception as error:
            self.answer(401, {**seen, "error": f"{type(error).__name__}: {error}"})
            return

        name = self.headers["X-Test-Wait-For"]
        if name:
            arrived[name].set()
            released[name].wait(PATIENCE_SECONDS)
        change = self.headers["X-Test-Set"]
        fields = [("X-Session-Set", change)] if change else []
        self.answer(int(self.headers["X-Test-Status"] or 200), seen, fields)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = handle_any


class Control(Handler):
    """Where a test holds requests and lets them go, and hands out keys."""

    def do_GET(self):
        name = self.path.removeprefix("/arrived/")
        self.answer(200 if arrived[name].wait(PATIENCE_SECONDS) else 504, name)

    def do_POST(self):
        global public_keys, secrets
        body = self.read_body()
        if self.path == "/secrets":
            secrets = json.loads(body)
        elif self.path == "/jwks":
            public_keys = {key.key_id: key for key in jwt.PyJWKSet.from_json(body).keys}
        else:
            released[self.path.removeprefix("/release/")].set()
        self.answer(200, self.path)


def serve(name, handler):
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"{name} on 127.0.0.1:{server.server_port}", flush=True)


# `listening` is last: who has read it knows both addresses.
serve("control", Control)
serve("listening", Upstream)
sys.stdin.read()
