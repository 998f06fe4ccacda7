"""What decides in Django who is logged in, and whether the gateway, which asks the database, sees it.

The gateway takes a user for logged in whom the session names, whose row is there and active, and whose password fits
the session's hash. Whatever else a site asks must be said in ``[django.user] where``, or be known by its services.
"""

from django.apps import apps
from django.conf import settings
from django.db.models.manager import BaseManager
from django.utils.module_loading import import_string

WHERE = 'say with [django.user] where who may be logged in, such as "is_active AND deleted_at IS NULL".'

# The gateway knows by their names that these log in users who are not active.
KNOWN = {
    "django.contrib.auth.backends.ModelBackend",
    "django.contrib.auth.backends.AllowAllUsersModelBackend",
    "django.contrib.auth.backends.AllowAllUsersRemoteUserBackend",
}

# Packages by their first name, as INSTALLED_APPS and MIDDLEWARE have it, and what a service gets with them. The same
# as in docs/django.md of session-gateway.
PACKAGES = [
    (
        {"hijack"},
        "django-hijack: services get the user who is impersonated. That it is an impersonation they see with "
        'forward = ["hijack_history", ...].',
    ),
    (
        {"impersonate"},
        "django-impersonate: services get the user who impersonates, not the one whom request.user is. Forward "
        '"_impersonate" and decide in the service.',
    ),
    (
        {"django_otp", "two_factor"},
        "django-otp: services get the user before the second factor. Ask for it in the service: "
        'forward = ["otp_device_id", ...].',
    ),
    (
        {"django_session_timeout", "session_security", "django_auto_logout"},
        "A package logs out after idle time, at the next request of Django only, and requests of services are no "
        "activity for it: use a shorter SESSION_COOKIE_AGE with SESSION_SAVE_EVERY_REQUEST.",
    ),
    (
        {"django_tenants", "tenant_schemas"},
        "A schema for each tenant: the gateway reads one. Run one gateway process for each, with "
        'table = "TENANT.django_session".',
    ),
]


def hash_is_djangos(model):
    """Whether the session's hash is made of the password as the gateway makes it."""
    from django.contrib.auth.base_user import AbstractBaseUser

    # The second is what the first calls, and what a project overrides to mix something in.
    names = ["get_session_auth_hash", "_get_session_auth_hash"]
    return all(getattr(model, name, None) is getattr(AbstractBaseUser, name) for name in names)


def user_notes(model):
    """What of the user model and the backends decides about a login, and the gateway does not ask."""
    from django.contrib.auth.base_user import AbstractBaseUser

    if may_leave_out(model._default_manager):
        yield (
            "The user model's default manager has a selection of its own. Django takes a user whom it leaves out for "
            f"logged out, and the gateway reads the table: {WHERE}"
        )
    fallback = getattr(model, "get_session_auth_fallback_hash", None)
    if fallback is not AbstractBaseUser.get_session_auth_fallback_hash and settings.SECRET_KEY_FALLBACKS:
        yield (
            "The user model has a get_session_auth_fallback_hash of its own, which the gateway does not ask: it takes "
            "hashes that are made with any of SECRET_KEY_FALLBACKS."
        )
    for path in settings.AUTHENTICATION_BACKENDS:
        yield from backend_notes(path)


def may_leave_out(manager):
    """Whether this manager may give fewer users than the table has. Its author knows: it may depend on the moment."""
    return type(manager).get_queryset is not BaseManager.get_queryset


def backend_notes(path):
    """What the backend asks of a user in each request, beyond what the gateway asks."""
    from django.contrib.auth.backends import ModelBackend

    if path in KNOWN:
        return
    try:
        backend = import_string(path)
    except Exception as error:  # noqa: BLE001 (whatever the site's own code raises)
        yield (
            f"The backend {path} cannot be imported here ({type(error).__name__}). If it has a get_user or "
            f"user_can_authenticate of its own: {WHERE}"
        )
        return
    names = ["get_user", "user_can_authenticate"]
    own = [name for name in names if getattr(backend, name, None) is not getattr(ModelBackend, name)]
    if own:
        yield (
            f"The backend {path} has not the {' and '.join(own)} of ModelBackend, and the gateway asks only whether "
            f"the user exists and is active: {WHERE}"
        )


def package_notes():
    """What middleware and packages add to a login, as far as they are known."""
    from django.contrib.sessions.middleware import SessionMiddleware

    names = {config.name.partition(".")[0] for config in apps.get_app_configs()}
    names.update(path.partition(".")[0] for path in settings.MIDDLEWARE)
    for packages, note in PACKAGES:
        if packages & names:
            yield note
    for path, middleware in middlewares():
        if issubclass(middleware, SessionMiddleware) and middleware is not SessionMiddleware:
            yield (
                f"{path} is a SessionMiddleware of the site's own: the gateway knows one session cookie and one "
                "table, those of the settings. If there are several, run one gateway process for each."
            )
        elif apps.is_installed("django.contrib.auth"):
            yield from login_notes(path, middleware)


def middlewares():
    """The classes of MIDDLEWARE, each with its path."""
    for path in settings.MIDDLEWARE:
        try:
            middleware = import_string(path)
        except Exception:  # noqa: BLE001, S112 (whatever the site's own code raises; Django says it when it starts)
            continue
        if isinstance(middleware, type):
            yield path, middleware


def login_notes(path, middleware):
    """What this middleware does to a login."""
    from django.contrib.auth.middleware import AuthenticationMiddleware, RemoteUserMiddleware

    if path == "django.contrib.auth.middleware.LoginRequiredMiddleware":
        yield 'LoginRequiredMiddleware guards views only: say require = "login" on the routes of services.'
    elif issubclass(middleware, RemoteUserMiddleware):
        if middleware.force_logout_if_no_header:
            yield (
                f"{path} logs out where the header of the server in front is missing, and the gateway does not: let "
                "that server guard the services, too. Where it is before the gateway, its header comes through only "
                'with trusted_fields = ["Remote-User"] in [gateway].'
            )
    elif issubclass(middleware, AuthenticationMiddleware) and middleware is not AuthenticationMiddleware:
        yield (
            f"{path} is an AuthenticationMiddleware of the site's own: what it makes of request.user the gateway does "
            "not see."
        )
