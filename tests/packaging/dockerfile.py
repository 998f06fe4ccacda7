"""Carries out the steps of the Dockerfile without Docker, and runs what comes of them:

    dockerfile.py PROFILE

It takes root. All of it happens in namespaces of its own, on a copy of this machine that is written to memory only.
What stands in for what:

* the first base image: this machine with its Rust, whatever the tag says;
* the second: the files of Debian's libc6 and libgcc-s1, certificates, and its user. No shell, no other program;
* the context: the repository, by .dockerignore;
* caches: cargo's own and `target/` of the repository, without writing to them.

So it shows that the steps work, that the program finds all it needs in such an image, as that user, with a root that
cannot be written to, and that it ends in order by STOPSIGNAL as the first process. It does not show that the base
images exist, nor what they have.
"""

import fcntl
import fnmatch
import json
import os
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

REPOSITORY = os.path.realpath(os.path.join(os.path.dirname(__file__), "../.."))
PATIENCE = 30  # seconds
CONFIGURATION = """
drain_delay = "0s"

[[listener]]
address = "127.0.0.1:8080"

[health]
address = "127.0.0.1:8081"

[gateway]
issuer = "https://shop.test"

[django]
database = { file = "database_url" }
secret_key = { file = "django_secret_key" }
release = "5.2"

[upstream.django]
servers = ["127.0.0.1:8000"]
django = true

[[route]]
path = "/"
upstream = "django"
session = "pass"
"""


class Problem(Exception):
    """The Dockerfile asks for something that cannot be done, here or at all."""


def instructions(text):
    """The instructions as (name, rest)."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    for line in joined.splitlines():
        if line.strip():
            name, _, rest = line.strip().partition(" ")
            yield name.upper(), rest.strip()


def context():
    """The files that .dockerignore leaves, relative to the repository."""
    with open(os.path.join(REPOSITORY, ".dockerignore"), encoding="utf-8") as file:
        patterns = [line.strip() for line in file if line.strip() and not line.startswith("#")]
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    for name in tracked:
        if not ignored(name, patterns):
            yield name


def ignored(name, patterns):
    """Whether the last pattern for a file, or for a folder of it, leaves it out."""
    parts = name.split("/")
    above = ["/".join(parts[: count + 1]) for count in range(len(parts))]
    result = False
    for pattern in patterns:
        wanted = pattern.removeprefix("!").strip("/")
        if any(part.count("/") == wanted.count("/") and fnmatch.fnmatch(part, wanted) for part in above):
            result = not pattern.startswith("!")
    return result


class Stage:
    """A stage, as far as it has come."""

    def __init__(self, root, arguments):
        self.root = root
        self.arguments = arguments
        self.variables = {}
        self.folder = "/"
        self.user = "0:0"
        self.entry = []
        self.command = []
        self.stop = "SIGTERM"
        self.exposed = []

    def path(self, inside):
        """Where a path of the image is outside of it."""
        return self.root + os.path.normpath(os.path.join("/", self.folder, inside))

    def carry_out(self, name, rest, stages, given):
        """One instruction."""
        match name:
            case "ARG":
                key, _, value = rest.partition("=")
                self.variables[key] = given.get(key, value)
            case "WORKDIR":
                self.folder = os.path.join(self.folder, rest)
                os.makedirs(self.path("."), exist_ok=True)
            case "COPY":
                self.copy(shlex.split(rest), stages)
            case "RUN":
                self.run(rest)
            case "USER":
                self.user = rest
            case "STOPSIGNAL":
                self.stop = rest
            case "EXPOSE":
                self.exposed = rest.split()
            case "ENTRYPOINT":
                self.entry = json.loads(rest)
            case "CMD":
                self.command = json.loads(rest)
            case "LABEL":
                if not all("=" in pair for pair in shlex.split(rest)):
                    raise Problem(f"LABEL {rest}")
            case "HEALTHCHECK":
                if rest != "NONE":
                    raise Problem(f"HEALTHCHECK {rest}")
            case _:
                raise Problem(f"{name} is not known here")

    def copy(self, words, stages):
        """COPY of files, from the context or another stage."""
        source = None
        if words[0].startswith("--from="):
            source = stages[words.pop(0).removeprefix("--from=")]
        *origins, target = words
        for origin in origins:
            if source is not None:
                place(source.path(origin), self.path(target), target, origin)
                continue
            found = [name for name in context() if origin == "." or name == origin or name.startswith(origin + "/")]
            if not found:
                raise Problem(f"COPY {origin}: the context has no such file")
            for name in found:
                inner = name if origin == "." else os.path.relpath(name, os.path.dirname(origin) or ".")
                into = os.path.join(target, inner) if origin == "." or target.endswith("/") else target
                place(os.path.join(REPOSITORY, name), self.path(into), into, name)

    def run(self, rest):
        """RUN in the stage's root, by its shell."""
        while cache := re.match(r"--mount=type=cache,target=(\S+)\s+", rest):
            # What stands in for the base image has the caches in their places.
            os.makedirs(self.path(cache[1]), exist_ok=True)
            rest = rest[cache.end() :]
        if rest.startswith("--"):
            raise Problem(f"RUN {rest}")
        # What says where cargo and rustc are, and what they have fetched.
        names = ("PATH", "HOME", "CARGO_HOME", "RUSTUP_HOME")
        variables = {name: os.environ[name] for name in names if name in os.environ} | self.variables
        shell = f"cd {shlex.quote(self.folder)} && {rest}"
        subprocess.run(["chroot", self.root, "/bin/sh", "-c", shell], env=variables, check=True)


def place(origin, outside, target, name):
    """One file or folder of a COPY."""
    if target.endswith("/"):
        outside = os.path.join(outside, os.path.basename(name))
    os.makedirs(os.path.dirname(outside), exist_ok=True)
    if os.path.isdir(origin):
        shutil.copytree(origin, outside, dirs_exist_ok=True)
    else:
        shutil.copy2(origin, outside)


def mount(*words):
    """mount(8)."""
    subprocess.run(["mount", *words], check=True)


def overlay(lower, scratch, name, target):
    """What is in `lower`, at `target`, where writing to it stays in memory."""
    upper, work = os.path.join(scratch, name + "-upper"), os.path.join(scratch, name + "-work")
    os.makedirs(upper)
    os.makedirs(work)
    os.makedirs(target, exist_ok=True)
    mount("-t", "overlay", "-o", f"lowerdir={lower},upperdir={upper},workdir={work}", "overlay", target)


def builder(scratch):
    """Stands in for the image of Rust: this machine."""
    root = os.path.join(scratch, "builder")
    overlay("/", scratch, "builder", root)
    for kernel in ("proc", "dev"):
        mount("--rbind", "/" + kernel, os.path.join(root, kernel))
    mount("-t", "tmpfs", "tmpfs", os.path.join(root, "tmp"))
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(REPOSITORY, "target"))
    os.makedirs(target, exist_ok=True)
    overlay(os.path.realpath(target), scratch, "target", os.path.join(root, "src/target"))
    return root


def distroless(scratch):
    """Stands in for gcr.io/distroless/cc-debian12:nonroot."""
    root = os.path.join(scratch, "distroless")
    for folder in ("tmp", "etc/ssl/certs", "home/nonroot", "usr/bin", "usr/lib", "usr/lib64", "proc"):
        os.makedirs(os.path.join(root, folder))
    for link in ("bin", "lib", "lib64"):
        os.symlink("usr/" + link, os.path.join(root, link))
    listed = subprocess.run(["dpkg", "-L", "libc6", "libgcc-s1"], check=True, capture_output=True, text=True).stdout
    for name in listed.splitlines():
        if re.search(r"/lib(64)?/.*\.so(\.|$)", name) and not os.path.isdir(name):
            outside = os.path.join(root, "usr", name.lstrip("/").removeprefix("usr/"))
            os.makedirs(os.path.dirname(outside), exist_ok=True)
            shutil.copy2(name, outside, follow_symlinks=False)
    certificates = "/etc/ssl/certs/ca-certificates.crt"
    if os.path.exists(certificates):
        shutil.copy2(certificates, root + certificates)
    with open(os.path.join(root, "etc/passwd"), "w", encoding="utf-8") as file:
        file.write("root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n")
    return root


BASES = {"rust": builder, "gcr.io/distroless/cc-debian12": distroless}


def build(scratch, given):
    """The last stage, with everything carried out."""
    with open(os.path.join(REPOSITORY, "Dockerfile"), encoding="utf-8") as file:
        text = file.read()
    stages, stage = {}, None
    for name, rest in instructions(text):
        print(name, rest, file=sys.stderr, flush=True)
        if name == "FROM":
            image, _, alias = rest.partition(" AS ")
            base, colon, tag = image.partition(":")
            if not colon or tag == "latest":
                raise Problem(f"FROM {image}: without a tag it is another one each day")
            stage = Stage(BASES[base](scratch), given)
            stages[alias or str(len(stages))] = stage
        else:
            stage.carry_out(name, rest, stages, given)
    return stage


def raise_loopback():
    """In new namespaces it is down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS: IFF_UP, IFF_RUNNING


def get(url):
    """Status and body."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def configure(stage):
    """What is mounted into a container."""
    folder = stage.path("/etc/session-gateway")
    os.makedirs(folder)
    files = {
        "gateway.toml": CONFIGURATION,
        "database_url": "postgres:///shop?host=/nowhere",
        "django_secret_key": "of-the-test-" * 4,
    }
    for name, text in files.items():
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write(text)
        os.chown(file.name, 0, 65532)
        os.chmod(file.name, 0o640)


def run(stage):
    """Runs the image, as the first process of its own, and ends it."""
    if stage.user.split(":")[0] in ("0", "root"):
        raise Problem("it would run as root")
    configure(stage)
    mount("--bind", stage.root, stage.root)
    mount("-o", "remount,ro,bind", stage.root)
    # Mounts its own /proc, as a runtime does, and becomes the program without privileges; on the way chroot needs some.
    confined = "setpriv --no-new-privs --bounding-set=-all,+setgid,+setuid,+sys_chroot"
    inner = f'mount -t proc proc "$1/proc" && shift && exec {confined} "$@"'
    isolated = ["unshare", "--mount-proc", "--net", "--pid", "--fork", "--kill-child=KILL"]
    command = [sys.executable, __file__, "--inside", inner, stage.root, stage.user, *stage.entry, *stage.command]
    subprocess.run([*isolated, *command], check=True, env={**os.environ, "STOPSIGNAL": stage.stop})


def inside(inner, root, user, *program):
    """In the image's network: starts the program, asks it and ends it."""
    raise_loopback()
    isolated = ["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL"]
    changed = ["chroot", f"--userspec={user}", root, *program]
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    process = subprocess.Popen([*isolated, "sh", "-c", inner, "sh", root, *changed], env={"PATH": path})
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            status, _ = get("http://127.0.0.1:8081/healthz")
            break
        except OSError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise Problem("it does not serve") from error
            time.sleep(0.05)
    expect("/healthz", status, 200)
    expect("a request", get("http://127.0.0.1:8080/")[0], 502)
    with open(f"/proc/{process.pid}/task/{process.pid}/children", encoding="ascii") as file:
        first = int(file.read().split()[0])
    with open(f"/proc/{first}/status", encoding="ascii") as file:
        told = dict(line.rstrip("\n").split(":\t", 1) for line in file)
    expect("its number inside", told["NSpid"].split()[-1], "1")
    expect("its user", told["Uid"].split()[0], user.split(":")[0])
    expect("its capabilities", int(told["CapEff"], 16), 0)
    os.kill(first, getattr(signal, os.environ["STOPSIGNAL"]))
    expect("its exit code", process.wait(PATIENCE), 0)
    print("all steps are right", flush=True)


def expect(what, found, wanted):
    """Fails if they differ."""
    if found != wanted:
        raise Problem(f"{what} is {found}, not {wanted}")


def main():
    """See above."""
    if os.geteuid() != 0:
        sys.exit("dockerfile.py: this takes root; this machine is not changed")
    if sys.argv[1] == "--inside":
        inside(*sys.argv[2:])
    elif sys.argv[1] == "--isolated":
        scratch = sys.argv[2]
        mount("-t", "tmpfs", "tmpfs", scratch)
        run(build(scratch, {"PROFILE": sys.argv[3]}))
    else:
        with tempfile.TemporaryDirectory(prefix="session-gateway-image.") as scratch:
            command = ["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"]
            subprocess.run([*command, sys.executable, __file__, "--isolated", scratch, sys.argv[1]], check=True)


if __name__ == "__main__":
    try:
        main()
    except Problem as problem:
        sys.exit(f"dockerfile.py: {problem}")
