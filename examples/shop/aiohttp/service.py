"""The shop's service with aiohttp: a page that shows the visitor's session, and its buttons."""

import json
import os
from pathlib import Path

from aiohttp import web
from jinja2 import Environment, FileSystemLoader
from session_gateway_upstream import Settings
from session_gateway_upstream.aiohttp import setup

PRODUCT = "kettle"

pages = Environment(loader=FileSystemLoader(Path(__file__).resolve().parents[1] / "pages"), autoescape=True)
routes = web.RouteTableDef()


@routes.get("/aiohttp/")
async def show(request):
    """The page. To see it is a visit."""
    session = await request.get_session()
    session["visits_aiohttp"] = session.get("visits_aiohttp", 0) + 1
    text = pages.get_template("page.html").render(
        service="aiohttp",
        here="/aiohttp/",
        product=PRODUCT,
        user=session.user,
        session=dict(session),
        rows=[(name, json.dumps(value, ensure_ascii=False)) for name, value in sorted(session.items())],
    )
    return web.Response(text=text, content_type="text/html")


@routes.post("/aiohttp/")
async def change(request):
    """One of the buttons. The gateway lets them through from the site's own pages only."""
    session = await request.get_session()
    form = await request.post()
    match form.get("do"):
        case "add":
            session.only_if_unchanged()  # What another page puts in meanwhile is not lost: one of the two gets a 409.
            session.setdefault("cart", []).append(PRODUCT)
        case "empty":
            session.pop("cart", None)
        case "gift":
            session["gift"] = not session.get("gift", False)
        case "logout":
            session.flush()
    if form.get("language") in ("en", "de", "fr"):
        session["language"] = form["language"]
    raise web.HTTPSeeOther("/aiohttp/")


app = web.Application()
app.add_routes(routes)
setup(
    app,
    Settings(
        keys={"aiohttp-1": Path(os.environ["SESSION_KEY_FILE"]).read_text()},
        audience="aiohttp",
        issuer="https://shop.example",
    ),
)

if __name__ == "__main__":
    web.run_app(app, host="127.0.0.1", port=int(os.environ["PORT"]))
