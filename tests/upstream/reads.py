"""Prints each request as the WSGI server of Python's standard library reads it."""

import json
import os
import sys
import threading
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer


class Handler(WSGIRequestHandler):
    def get_environ(self):
        return super().get_environ() | {"RAW_TARGET": self.path}

    def log_message(self, *_):
        pass


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


def application(environ, start_response):
    body = environ["wsgi.input"]
    if environ.get("HTTP_TRANSFER_ENCODING") == "chunked":
        body = b"".join(chunks(body))
    else:
        body = body.read(int(environ.get("CONTENT_LENGTH") or 0))
    told = {
        "method": environ["REQUEST_METHOD"],
        "path": environ["RAW_TARGET"],
        # As Rust's escape_ascii writes it.
        "body": body.decode("latin-1")
        .replace("\\", "\\\\").replace("\r", "\\r").replace("\n", "\\n").replace('"', '\\"'),
    }
    print(f"request {json.dumps(told)}", flush=True)
    path = environ["RAW_TARGET"].encode()
    start_response("200 OK", [("Content-Length", str(len(path)))])
    return [path]


def chunks(stream):
    while size := int(stream.readline(), 16):
        yield stream.read(size)
        stream.readline()
    while stream.readline().strip():
        pass


def end_with_the_test():
    sys.stdin.read()
    os._exit(0)


server = Server(("127.0.0.1", 0), Handler)
server.set_app(application)
threading.Thread(target=end_with_the_test, daemon=True).start()
print(f"listening on 127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
