"""The page that shows the session, and its buttons."""

import json

from django.contrib.auth import logout
from django.shortcuts import redirect, render

PRODUCT = "paperback"


def shop(request):
    """Shows the session; a POST is one of the buttons."""
    session = request.session
    if request.method == "POST":
        change(request, session)
        return redirect("/")
    session["visits_django"] = session.get("visits_django", 0) + 1
    shown = {name: value for name, value in session.items() if not name.startswith("_")}
    page = {
        "service": "Django",
        "here": "/",
        "product": PRODUCT,
        "session": shown,
        "rows": [(name, json.dumps(value, ensure_ascii=False)) for name, value in sorted(shown.items())],
    }
    return render(request, "page.html", page)


def change(request, session):
    """What a button does."""
    match request.POST.get("do"):
        case "add":
            session["cart"] = session.get("cart", []) + [PRODUCT]
        case "empty":
            session.pop("cart", None)
        case "gift":
            session["gift"] = not session.get("gift", False)
        case "logout":
            logout(request)
    if request.POST.get("language") in ("en", "de", "fr"):
        session["language"] = request.POST["language"]
