"""Where the views are."""

from django.urls import path

from shop import views

urlpatterns = [
    path("session/", views.read),
    path("login/", views.log_in),
    path("logout/", views.log_out),
    path("logout/stay/", views.log_out_and_stay),
    path("logout/let-go/", views.let_go),
    path("set/", views.change),
    path("set/later/", views.change_later),
    path("set/later/loaded/", views.loaded),
    path("set/later/go-on/", views.go_on),
    path("del/", views.delete),
    path("cycle/", views.cycle),
    path("flush/", views.flush),
    path("expiry/", views.expiry),
    path("end/", views.end),
    path("message/", views.message),
    path("messages/", views.read_messages),
    path("password/", views.own_password),
    path("user/password/", views.user_password),
    path("user/active/", views.user_active),
    path("user/create/", views.user_create),
    path("user/delete/", views.user_delete),
]
