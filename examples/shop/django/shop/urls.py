"""The site's pages."""

from django.contrib.auth.views import LoginView
from django.urls import path

from .views import shop

urlpatterns = [
    path("", shop),
    path("accounts/login/", LoginView.as_view(template_name="login.html", extra_context={"service": "Django"})),
]
