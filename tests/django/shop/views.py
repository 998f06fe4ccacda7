"""What the test site can do: log in and out, and read and change its session and its users.

Every answer is JSON. Arguments come in the query, so that a test says all of a request in one line.
"""

import json
import threading
from datetime import datetime

from django.contrib import messages
from django.contrib.auth import authenticate, get_user_model, login, logout, update_session_auth_hash
from django.http import JsonResponse


def state(request, status=200):
    """The visitor as this site sees it. The password's hash is nobody's business."""
    user = request.user
    answer = {
        "user": str(user.pk) if user.is_authenticated else None,
        "session": {name: value for name, value in request.session.items() if name != "_auth_user_hash"},
        "key": request.session.session_key,
        "received": {name: value for name, value in request.headers.items()},
    }
    return JsonResponse(answer, status=status)


def read(request):
    """GET /session/"""
    return state(request)


def log_in(request):
    """POST /login/?username=&password="""
    user = authenticate(request, username=request.GET["username"], password=request.GET["password"])
    if user is None:
        return state(request, status=403)
    login(request, user)
    return state(request)


def log_out(request):
    """POST /logout/"""
    logout(request)
    return state(request)


LET_GO = threading.Event()


def log_out_and_stay(request):
    """POST /logout/stay/ does not return before somebody says so. With ATOMIC_REQUESTS it holds the row till then."""
    logout(request)
    LET_GO.wait(timeout=60)
    return state(request)


def let_go(request):
    """POST /logout/let-go/"""
    LET_GO.set()
    return JsonResponse({})


def change(request):
    """POST /set/?name=JSON&..."""
    for name, value in request.GET.items():
        request.session[name] = json.loads(value)
    return state(request)


LOADED, GO_ON = threading.Event(), threading.Event()


def change_later(request):
    """POST /set/later/?name=JSON&... loads the session, and sets and saves it when somebody says so."""
    dict(request.session)
    LOADED.set()
    GO_ON.wait(timeout=60)
    return change(request)


def loaded(request):
    """GET /set/later/loaded/ returns when that has loaded the session."""
    return JsonResponse({"loaded": LOADED.wait(timeout=60)})


def go_on(request):
    """POST /set/later/go-on/"""
    GO_ON.set()
    return JsonResponse({})


def delete(request):
    """POST /del/?name&..."""
    for name in request.GET:
        request.session.pop(name, None)
    return state(request)


def cycle(request):
    """POST /cycle/"""
    request.session.cycle_key()
    return state(request)


def flush(request):
    """POST /flush/"""
    request.session.flush()
    return state(request)


def expiry(request):
    """POST /expiry/?seconds= or ?at=ISO 8601"""
    at = request.GET.get("at")
    request.session.set_expiry(datetime.fromisoformat(at) if at else int(request.GET["seconds"]))
    return state(request)


def end(request):
    """GET /end/: when the row ends, in seconds since 1970, and when the session says it does."""
    row = request.session.model.objects.get(pk=request.session.session_key)
    answer = {
        # Without an offset it is in the process's own zone, which Django sets to TIME_ZONE.
        "row": row.expire_date.timestamp(),
        "age": request.session.get_expiry_age(),
        "browser_close": request.session.get_expire_at_browser_close(),
    }
    return JsonResponse(answer)


def message(request):
    """POST /message/?text="""
    messages.info(request, request.GET["text"])
    return state(request)


def read_messages(request):
    """POST /messages/: those that wait, which are then gone."""
    return JsonResponse({"messages": [str(message) for message in messages.get_messages(request)]})


def own_password(request):
    """POST /password/?password= changes the visitor's password and keeps this one session logged in."""
    request.user.set_password(request.GET["password"])
    request.user.save()
    update_session_auth_hash(request, request.user)
    return state(request)


def user_password(request):
    """POST /user/password/?username=&password= is what an administrator does: no session is kept."""
    user = get_user_model().objects.get_by_natural_key(request.GET["username"])
    user.set_password(request.GET["password"])
    user.save()
    return JsonResponse({})


def user_active(request):
    """POST /user/active/?username=&active=true|false"""
    users = get_user_model().objects.filter(username=request.GET["username"])
    users.update(is_active=json.loads(request.GET["active"]))
    return JsonResponse({})


def user_create(request):
    """POST /user/create/?username= with the name as the password"""
    name = request.GET["username"]
    user = get_user_model().objects.create_user(name, password=name)
    return JsonResponse({"id": str(user.pk)})


def user_delete(request):
    """POST /user/delete/?username="""
    get_user_model().objects.get(username=request.GET["username"]).delete()
    return JsonResponse({})
