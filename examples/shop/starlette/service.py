"""The shop's service with Starlette: a page that shows the visitor's session, and its buttons."""

import json
import os
from pathlib import Path

import uvicorn
from session_gateway_upstream import Settings
from session_gateway_upstream.asgi import SessionMiddleware
from starlette.applications import Starlette
from starlette.responses import RedirectResponse
from starlette.routing import Route
from starlette.templating import Jinja2Templates

PRODUCT = "telescope"

pages = Jinja2Templates(Path(__file__).resolve().parents[1] / "pages")


async def show(request):
    """The page. To see it is a visit."""
    session = await request.state.get_session()
    session["visits_starlette"] = session.get("visits_starlette", 0) + 1
    page = {
        "service": "Starlette",
        "here": "/starlette/",
        "product": PRODUCT,
        "user": session.user,
        "session": dict(session),
        "rows": [(name, json.dumps(value, ensure_ascii=False)) for name, value in sorted(session.items())],
    }
    return pages.TemplateResponse(request, "page.html", page)


async def change(request):
    """One of the buttons. The gateway lets them through from the site's own pages only."""
    session = await request.state.get_session()
    async with request.form() as form:
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
    return RedirectResponse("/starlette/", 303)


app = Starlette(routes=[Route("/starlette/", show), Route("/starlette/", change, methods=["POST"])])
app.add_middleware(
    SessionMiddleware,
    settings=Settings(
        keys={"starlette-1": Path(os.environ["SESSION_KEY_FILE"]).read_text()},
        audience="starlette",
        issuer="https://shop.example",
    ),
)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]))
