"""What an administrator does to users. Arguments come in the query."""

import json

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.http import JsonResponse


def user(request):
    """GET /people/?username= gives the user as the templates of a site would see it."""
    found = get_user_model().objects.get_by_natural_key(request.GET["username"])
    names = [field.name for field in found._meta.concrete_fields if field.name != "password"]
    answer = {name: getattr(found, name) for name in names}
    if hasattr(found, "groups"):
        answer["groups"] = sorted(found.groups.values_list("name", flat=True))
    return JsonResponse({"pk": str(found.pk), "user": answer})


def change(request):
    """POST /people/change/?username=&name=JSON&..."""
    found = get_user_model().objects.get_by_natural_key(request.GET["username"])
    for name, value in request.GET.items():
        if name != "username":
            setattr(found, name, json.loads(value))
    found.save()
    return JsonResponse({})


def join(request):
    """POST /people/join/?username=&group= makes the group where there is none."""
    group, _ = Group.objects.get_or_create(name=request.GET["group"])
    group.user_set.add(get_user_model().objects.get_by_natural_key(request.GET["username"]))
    return JsonResponse({})


def leave(request):
    """POST /people/leave/?username=&group="""
    group = Group.objects.get(name=request.GET["group"])
    group.user_set.remove(get_user_model().objects.get_by_natural_key(request.GET["username"]))
    return JsonResponse({})


def delete(request):
    """POST /people/delete/?username="""
    get_user_model().objects.get_by_natural_key(request.GET["username"]).delete()
    return JsonResponse({})
