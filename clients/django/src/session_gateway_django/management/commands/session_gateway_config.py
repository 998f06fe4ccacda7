"""manage.py session_gateway_config: prints a gateway.toml from the project's settings."""

import ipaddress
import re

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from session_gateway_django.describe import Site
from session_gateway_django.values import comment, text, texts

# It is a segment of a path, a part of a file's name and of a command, and with "-1" a key's id of at most 64.
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,61}\Z")
ADDRESS = re.compile(r"unix:/\S+\Z|(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):\d{1,5}\Z")
ISSUER = re.compile(r"[!#-\[\]-~]{1,200}\Z")


class Command(BaseCommand):
    """The command."""

    help = (
        "Prints a gateway.toml for session-gateway from the project's settings. Secrets are named, never printed: "
        "what the gateway must find in its environment is said on standard error."
    )
    requires_system_checks = ()
    requires_migrations_checks = False

    def add_arguments(self, parser):
        parser.add_argument(
            "--upstream",
            metavar="NAME=ADDRESS",
            action="append",
            default=[],
            help="A service that gets /NAME/, at host:port or unix:PATH. May be given several times.",
        )
        parser.add_argument("--django", metavar="ADDRESS", default="127.0.0.1:8000", help="Where Django is served.")
        parser.add_argument("--listen", metavar="ADDRESS", default="127.0.0.1:8080", help="Where the gateway listens.")
        parser.add_argument("--issuer", metavar="TEXT", help="The gateway's name in its tokens.")
        parser.add_argument("--output", metavar="FILE", help="A new file to write instead of standard output.")

    def handle(self, *args, **options):
        upstreams = [self.upstream(given) for given in options["upstream"] or ["service=127.0.0.1:3000"]]
        names = [name for name, _ in upstreams]
        if len(set(names)) < len(names) or "django" in names:
            raise CommandError("--upstream: each NAME once, and not django.")
        if not is_address(options["django"]):
            raise CommandError("--django is host:port or unix:PATH.")
        if not listens(options["listen"]):
            raise CommandError("--listen is an IP address and a port, such as 127.0.0.1:8080, or unix:PATH.")
        if options["issuer"] and not ISSUER.match(options["issuer"]):
            raise CommandError("--issuer is 1 to 200 visible ASCII characters without quotes and backslashes.")
        site = Site()
        toml = self.render(site, upstreams, options)
        if options["output"]:
            try:
                with open(options["output"], "x", encoding="utf-8") as file:
                    file.write(toml)
            except OSError as error:
                raise CommandError(f"{options['output']} was not written: {error.strerror}.") from error
        else:
            self.stdout.write(toml, ending="")
        self.explain(site)

    def upstream(self, given):
        name, _, address = given.partition("=")
        if not NAME.match(name) or not is_address(address):
            raise CommandError(
                "--upstream is NAME=ADDRESS: up to 62 letters, digits, - _ . beginning with a letter, a digit or _; "
                "and host:port or unix:PATH."
            )
        return name, address

    def render(self, site, upstreams, options):
        """The file. What it says of the site comes first, so that all notes are known."""
        self.files = []
        sections = list(site.sections())
        hosts = site.hosts()
        issuer = options["issuer"] or (f"https://{hosts[0]}" if hosts else "session-gateway")
        origins = site.trusted_origins()
        login_url = site.login_url()
        self.proxy_notes(site, hosts)

        lines = ["# Made by manage.py session_gateway_config. All keys: docs/configuration.md of session-gateway."]
        lines += [comment(note) for note in site.notes]
        lines += ["", "[[listener]]", f"address = {text(options['listen'])}"]
        lines += ["", "[gateway]", f"issuer = {text(issuer)}"]
        lines += ["trusted_proxies = []  # load balancers before the gateway, whose X-Forwarded-For and -Proto count"]
        if origins:
            lines.append(f"trusted_origins = {texts(origins)}")
        for name, content in sections:
            lines += ["", f"[{name}]", *content]
        for name, address in upstreams:
            kid, file = f"{name}-1", f"secrets/{name}_key"
            self.files.append(f"session-gateway key new --upstream {name} --kid {kid} --out {file}")
            lines += ["", f"[upstream.{quoted(name)}]", f"servers = [{text(address)}]"]
            lines += [f"keys = [{{ kid = {text(kid)}, secret = {{ file = {text(file)} }} }}]  # the service has it too"]
        lines += ["", "[upstream.django]", f"servers = [{text(options['django'])}]", "django = true"]
        read_only = site.engine_is_read_only()
        for name, _ in upstreams:
            lines += ["", "[[route]]", f"path = {text('/' + name + '/')}", f"upstream = {text(name)}"]
            lines += ['require = "anyone"  # session | login | staff | superuser']
            lines += ['forward = "*"  # what the service reads: all but protected names, or a list']
            if not read_only:
                lines += ['writable = []  # what it may change: nothing unless it is said, such as ["cart"]']
            if login_url:
                lines.append(f"login_url = {text(login_url)}")
        lines += ["", "[[route]]", 'path = "/"', 'upstream = "django"', 'session = "pass"', ""]
        return "\n".join(lines)

    def proxy_notes(self, site, hosts):
        if settings.SECURE_PROXY_SSL_HEADER:
            site.note(
                "SECURE_PROXY_SSL_HEADER is set, so TLS ends before Django. If it ends before the gateway, name that "
                "proxy in trusted_proxies; or give the gateway's listener the certificate."
            )
        elif settings.SESSION_COOKIE_SECURE:
            site.note(
                "The cookie is for https only, and Django gets http from the gateway: set SECURE_PROXY_SSL_HEADER = "
                "('HTTP_X_FORWARDED_PROTO', 'https') in settings.py. The gateway overwrites that header."
            )
        header = settings.SECURE_PROXY_SSL_HEADER
        if header and tuple(header) != ("HTTP_X_FORWARDED_PROTO", "https"):
            site.note(
                "Set SECURE_PROXY_SSL_HEADER to ('HTTP_X_FORWARDED_PROTO', 'https'): the gateway tells the scheme in "
                "that header, and removes others unless trusted_fields in [gateway] names them."
            )
        if settings.USE_X_FORWARDED_PORT:
            site.note(
                "USE_X_FORWARDED_PORT: the gateway removes X-Forwarded-Port, unless trusted_fields in [gateway] names "
                "it. Host has the port as the client sent it."
            )
        if settings.USE_X_FORWARDED_HOST:
            site.note("USE_X_FORWARDED_HOST is not needed: the gateway leaves Host as the client sent it.")
        if hosts:
            site.note(f'ALLOWED_HOSTS has {", ".join(hosts)}: a route with host = "..." is for that one only.')

    def explain(self, site):
        """Says on standard error what the environment must hold, and which files."""
        self.stderr.write("The gateway must find in its environment:", style_func=str)
        for name, what in site.environment:
            self.stderr.write(f"  {name} = {what}", style_func=str)
        if any("PASSWORD" in what for _, what in site.environment):
            self.stderr.write("PASSWORD is the database's password, with @ : / # ? % as %40 and so on.", style_func=str)
        self.stderr.write("The keys that gateway and services share are made beside gateway.toml:", style_func=str)
        for line in ["mkdir -p secrets", *self.files]:
            self.stderr.write(f"  {line}", style_func=str)


def is_address(address):
    """Whether this is the address of a server."""
    if not ADDRESS.match(address):
        return False
    port = address.rpartition(":")[2]
    return address.startswith("unix:") or (is_port(port) and int(port) > 0)


def is_port(port):
    """Whether this is a port's number; 0 lets the system choose one."""
    return bool(re.match(r"\d{1,5}\Z", port)) and int(port) < 65536


def listens(address):
    """Whether the gateway can listen there."""
    if address.startswith("unix:/"):
        return is_address(address)
    host, _, port = address.rpartition(":")
    try:
        version = ipaddress.ip_address(host.strip("[]")).version
    except ValueError:
        return False
    return (version == 6) == host.startswith("[") and is_port(port)


def quoted(name):
    """A TOML key: with quotes where a dot would make two of it."""
    return text(name) if "." in name else name
