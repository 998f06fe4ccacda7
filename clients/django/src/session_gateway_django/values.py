"""Values of gateway.toml: how they are written, and which the gateway takes."""

import json
import re

HOST = r"(?:\[[0-9a-f:.]+\]|[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*)"
ORIGIN = re.compile(rf"(https?)://({HOST})(?::(\d{{1,5}}))?\Z")
# Letters as they are, and %-escapes of other bytes than those of ASCII, such as Django makes them.
SEGMENT = r"(?!\.{1,2}(?:/|\Z))(?:[A-Za-z0-9._~!$&'()*+,:=@-]|%[89A-Fa-f][0-9A-Fa-f])+"
PATH = rf"/(?:{SEGMENT}(?:/{SEGMENT})*/?)?"
LOGIN_URL = re.compile(rf"(?:https://(?i:{HOST})(?::[1-5]?\d{{1,4}})?(?:{PATH})?|{PATH})\Z")
COOKIE_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}\Z")
COOKIE_DOMAIN = re.compile(r"\.?[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\Z")
COOKIE_PATH = re.compile(r"/[!#-+\--:<-\[\]-~]*\Z")
LONGEST_AGE = 3650 * 86400


def text(value):
    """A TOML text. JSON's escapes are among TOML's, but for a surrogate, which no setting has."""
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007F")


def literal(value):
    """A TOML text that may have double quotes in it."""
    return f"'{value}'" if "'" not in value else text(value)


def texts(values):
    """A TOML list of texts."""
    return "[" + ", ".join(text(value) for value in values) + "]"


def truth(value):
    """A TOML boolean."""
    return "true" if value else "false"


def comment(value):
    """A TOML comment of one line, whatever stands in it."""
    return "# " + " ".join("".join(c if c.isprintable() else " " for c in value).split())


def duration(seconds):
    """A duration as the gateway has it, in its largest unit."""
    for size, unit in [(86400, "d"), (3600, "h"), (60, "m")]:
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def origin(value):
    """The origin in the one spelling that browsers have; None if it is none."""
    found = ORIGIN.match(value.lower())
    if found is None:
        return None
    scheme, host, port = found.groups()
    if port is None or (scheme, int(port)) in [("https", 443), ("http", 80)]:
        return f"{scheme}://{host}"
    return f"{scheme}://{host}:{int(port)}" if int(port) < 65536 else None


def cookie_problem(name, age, domain, path, secure, samesite):
    """Why the gateway, or each browser, refuses this session cookie; None if none does."""
    lower = name.lower()
    if not COOKIE_NAME.match(name):
        return f"SESSION_COOKIE_NAME is {name!r}, which is no cookie's name."
    if not 1 <= age <= LONGEST_AGE:
        return f"SESSION_COOKIE_AGE is {age}: the gateway takes 1 second to 3650 days."
    if domain and not COOKIE_DOMAIN.match(domain):
        return f"SESSION_COOKIE_DOMAIN is {domain!r}, which is no host's name."
    if not COOKIE_PATH.match(path):
        return f"SESSION_COOKIE_PATH is {path!r}, which is no cookie's path."
    if not secure and samesite == "None":
        return "SESSION_COOKIE_SAMESITE is 'None': browsers drop such a cookie without SESSION_COOKIE_SECURE = True."
    if not secure and lower.startswith(("__secure-", "__host-")):
        return f"SESSION_COOKIE_NAME is {name!r}: browsers drop such a cookie without SESSION_COOKIE_SECURE = True."
    if lower.startswith("__host-") and (domain or path != "/"):
        return (
            f"SESSION_COOKIE_NAME is {name!r}: browsers drop such a cookie with a SESSION_COOKIE_DOMAIN, or a "
            "SESSION_COOKIE_PATH other than '/'."
        )
    return None
