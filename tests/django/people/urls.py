"""The site's own views, and those of an administrator."""

from django.urls import path
from shop.urls import urlpatterns as shop

from people import views

urlpatterns = [
    *shop,
    path("people/", views.user),
    path("people/change/", views.change),
    path("people/join/", views.join),
    path("people/leave/", views.leave),
    path("people/delete/", views.delete),
]
