"""A Starlette service that reads Django's session itself, with async-django-session; what bench/run compares with."""

import contextlib
import os

import asyncpg
from async_django_session.asyncpg import Backend
from async_django_session.starlette import middleware
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route


class Pool:
    """The backend wants the pool before there is a loop to make it in."""

    def acquire(self):
        return self.connections.acquire()


@contextlib.asynccontextmanager
async def connected(_):
    options = {
        "host": "127.0.0.1",
        "port": os.environ["BENCH_DATABASE_PORT"],
        "user": "postgres",
        "password": os.environ["BENCH_DATABASE_PASSWORD"],
        "database": "postgres",
        # Where the sessions are in the format that it reads.
        "server_settings": {"search_path": "legacy"},
    }
    async with asyncpg.create_pool(min_size=2, max_size=8, **options) as pool.connections:
        yield


async def index(request):
    session = await request.state.get_session()
    return JSONResponse({"ok": "_auth_user_id" in session})


async def echo(request):
    return JSONResponse({"session": await request.state.get_session()})


pool = Pool()
app = Starlette(routes=[Route("/", index), Route("/echo", echo)], lifespan=connected)
middleware(app, Backend(pool, os.environ["BENCH_SECRET_KEY"]))
