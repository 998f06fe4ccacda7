"""A WebSocket server and client with the library `websockets`.

    chat.py server                   prints `listening on ADDRESS`; sends back what comes; ends with its standard input
    chat.py client URL COOKIE WORD   sends WORD, prints `echo WORD`, then waits: prints `closed CODE REASON`
"""

import asyncio
import sys

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed


async def echo(socket):
    try:
        async for message in socket:
            await socket.send(message)
    except ConnectionClosed:
        pass
    print(f"client closed {socket.close_code} {socket.close_reason}", flush=True)


async def server():
    async with serve(echo, "127.0.0.1", 0) as listening:
        host, port = listening.sockets[0].getsockname()
        print(f"listening on {host}:{port}", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def client(url, cookie, word):
    async with connect(url, additional_headers={"Cookie": f"sessionid={cookie}"}) as socket:
        await socket.send(word)
        print(f"echo {await socket.recv()}", flush=True)
        try:
            async for _ in socket:
                pass
        except ConnectionClosed:
            pass
        print(f"closed {socket.close_code} {socket.close_reason}", flush=True)


if sys.argv[1] == "server":
    asyncio.run(server())
else:
    asyncio.run(client(*sys.argv[2:5]))
