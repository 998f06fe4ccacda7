"""WebSockets with the library `websockets`.

    talk.py server               prints `listening on ADDRESS`; sends back what comes; ends with its standard input
    talk.py client PORT [CA]     talks in every way; with CA over TLS for shop.test
"""

import asyncio
import ssl
import sys

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed


async def talk(socket):
    assert socket.request.headers["X-Session"]
    try:
        async for message in socket:
            if message == "close":
                await socket.close(4000, "as you wish")
                return
            await socket.send(message)
    except ConnectionClosed:
        pass


async def server():
    async with serve(talk, "127.0.0.1", 0, max_size=None, subprotocols=["chat"]) as listening:
        host, port = listening.sockets[0].getsockname()
        print(f"listening on {host}:{port}", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def client(port, ca=None):
    options = {"host": "127.0.0.1", "port": int(port), "max_size": None}
    if ca:
        options |= {"ssl": ssl.create_default_context(cafile=ca), "server_hostname": "shop.test"}
    url = f"{'wss' if ca else 'ws'}://shop.test/talk?room=1"
    async with connect(url, subprotocols=["chat"], **options) as socket:
        assert socket.subprotocol == "chat"
        # Compression is between the two ends, and passes.
        assert "permessage-deflate" in socket.response.headers["Sec-WebSocket-Extensions"]
        await socket.send("text \N{SNOWMAN}")
        assert await socket.recv() == "text \N{SNOWMAN}"
        large = bytes(range(256)) * 4096 * 4
        await socket.send(large)
        assert await socket.recv() == large
        await socket.send([b"in ", b"frag", b"ments"])
        assert await socket.recv() == b"in fragments"
        await asyncio.wait_for(await socket.ping(), 10)
        for number in range(500):
            await socket.send(str(number))
        for number in range(500):
            assert await socket.recv() == str(number)
        await socket.send("close")
        await socket.wait_closed()
        assert (socket.close_code, socket.close_reason) == (4000, "as you wish")
    async with connect(url, subprotocols=["chat"], compression=None, **options) as socket:
        await socket.send("once more")
        assert await socket.recv() == "once more"
        await socket.close(1000, "done")
    assert socket.close_code == 1000
    print("all is well", flush=True)


if sys.argv[1] == "server":
    asyncio.run(server())
else:
    asyncio.run(client(*sys.argv[2:]))
