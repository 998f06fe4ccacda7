"""Uses the gateway as a program with httpx does: browse.py BASE VERSION [CA]. Its upstream sends back the body."""

import asyncio
import sys

import httpx

base, version = sys.argv[1:3]
ca = sys.argv[3] if len(sys.argv) > 3 else None
options = {
    "http1": version == "HTTP/1.1",
    "http2": version == "HTTP/2",
    "base_url": base,
    "headers": {"Host": "shop.test"},
    "timeout": 20,
}
if ca:
    import ssl

    options["verify"] = ssl.create_default_context(cafile=ca)
extensions = {"sni_hostname": "shop.test"} if ca else {}


def drops():
    for number in range(1000):
        yield b"%d," % number


with httpx.Client(**options) as client:
    answer = client.get("/a", params={"q": "a b/\N{SNOWMAN}"}, extensions=extensions)
    assert (answer.status_code, answer.http_version) == (200, version), answer
    answer = client.post("/form", data={"name": "value", "more": "ü"}, extensions=extensions)
    assert answer.content == b"name=value&more=%C3%BC", answer.content
    answer = client.post("/json", json={"a": [1, 2]}, extensions=extensions)
    assert answer.json() == {"a": [1, 2]}
    answer = client.put("/stream", content=drops(), extensions=extensions)
    assert answer.content == b"".join(drops())
    large = bytes(range(256)) * 4096 * 4
    with client.stream("POST", "/large", content=large, extensions=extensions) as answer:
        assert b"".join(answer.iter_raw()) == large
    answer = client.post("/files", files={"file": ("a.txt", b"text")}, extensions=extensions)
    assert b'filename="a.txt"' in answer.content
    assert client.head("/a", extensions=extensions).content == b""
    assert client.get("/none", extensions=extensions).status_code == 204
    answer = client.get("/cookie", extensions=extensions)
    assert client.cookies.get("sessionid"), answer.headers
    answer = client.get("/counted", extensions=extensions)
    assert answer.text == "1", answer.text
    answer = client.get("/%2f", extensions=extensions)
    assert answer.json()["code"] == "bad-request"


async def many():
    async with httpx.AsyncClient(**options) as client:
        asked = [client.post(f"/{n}", content=b"%d" % n, extensions=extensions) for n in range(200)]
        answers = await asyncio.gather(*asked)
        assert [answer.content for answer in answers] == [b"%d" % n for n in range(200)]


asyncio.run(many())
print("all is well", flush=True)
