"""The app."""

from django.apps import AppConfig


class SessionGatewayConfig(AppConfig):
    """Registers the system checks; the command is found by itself."""

    name = "session_gateway_django"
    verbose_name = "session-gateway"

    def ready(self):
        from session_gateway_django import checks  # noqa: F401 (registers them)
