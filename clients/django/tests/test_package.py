"""What the README says, done as it stands; and the wheel."""

from tests.base import SiteTest  # isort: skip

import importlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import unittest
import zipfile
from pathlib import Path

from tests import models
from tests.test_command import GATEWAY, ProjectTest

FOLDER = Path(__file__).resolve().parent.parent
README = (FOLDER / "README.md").read_text(encoding="utf-8")


def snippets(language):
    """What stands in the README's blocks of this language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


class ReadmeTest(SiteTest, ProjectTest):
    def test_the_settings_name_what_is_there(self):
        engines = []
        for snippet in snippets("python"):
            if "SESSION_ENGINE" in snippet:
                settings = {}
                exec(snippet, settings)
                engines.append(settings["SESSION_ENGINE"])
                self.assertEqual(importlib.import_module(engines[-1]).SessionStore.__qualname__, "SessionStore")
                self.assertEqual(settings.get("SESSION_GATEWAY_CACHE_SECONDS", 5), 5)
                self.assertIn(settings.get("INSTALLED_APPS", [...])[-1], [..., "session_gateway_django"])
        self.assertEqual(engines, ["session_gateway_django.db", "session_gateway_django.cached_db"])
        options = next(snippet for snippet in snippets("python") if snippet.startswith('"OPTIONS"'))
        self.assertEqual(eval("{" + options + "}"), {"OPTIONS": {"transaction_mode": "IMMEDIATE"}})

    def test_the_engine_with_a_model_of_ones_own_merges_and_fills_its_column(self):
        models.CustomerSession.objects.all().delete()
        snippet = next(snippet for snippet in snippets("python") if "CustomerSession" in snippet)
        names = {"CustomerSession": models.CustomerSession}
        exec(snippet, names)
        store = names["SessionStore"]
        session = store()
        session["a"] = 1
        session.save()
        other = store(session.session_key)
        other["customer"] = "7"
        other.save()
        session["c"] = 1
        session.save()
        row = models.CustomerSession.objects.get()
        self.assertEqual(store().decode(row.session_data), {"a": 1, "c": 1, "customer": "7"})
        self.assertEqual(row.customer, "7")

    def test_the_command_does_what_its_line_says(self):
        line = next(line for line in README.splitlines() if line.startswith("python manage.py session_gateway_config"))
        with tempfile.TemporaryDirectory() as folder:
            before = os.getcwd()
            path = sys.path[:]
            sys.path[:] = [os.path.abspath(entry) for entry in path]
            os.chdir(folder)
            try:
                done = self.django(*shlex.split(line)[2:])
            finally:
                os.chdir(before)
                sys.path[:] = path
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("[upstream.orders]", Path(folder, "gateway.toml").read_text(encoding="utf-8"))
            check = next(line for line in README.splitlines() if line.startswith("session-gateway check"))
            if GATEWAY:
                checked = subprocess.run(
                    [GATEWAY, *shlex.split(check)[1:]], cwd=folder, capture_output=True, timeout=60
                )
                self.assertEqual(checked.returncode, 0, checked.stdout)


def can_build():
    """Whether this Python's setuptools makes wheels by itself: from 70.1 on."""
    try:
        return importlib.util.find_spec("setuptools.command.bdist_wheel") is not None
    except ModuleNotFoundError:
        return False


@unittest.skipUnless(can_build(), "this Python has no setuptools that makes wheels")
class WheelTest(unittest.TestCase):
    def test_the_wheel_has_all_modules_and_nothing_else(self):
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "source")
            shutil.copytree(FOLDER, source, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
            command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
            command += ["--no-build-isolation", "--no-index", "--wheel-dir", folder, str(source)]
            # What warns in pip is not ours.
            done = subprocess.run(command, capture_output=True, text=True, timeout=300)
            self.assertEqual(done.returncode, 0, done.stderr)
            (wheel,) = Path(folder).glob("session_gateway_django-0.1.0-py3-none-any.whl")
            packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
        modules = {str(file.relative_to(FOLDER / "src")) for file in (FOLDER / "src").rglob("*.py")}
        self.assertEqual(packed, modules)
        self.assertIn("session_gateway_django/management/commands/session_gateway_config.py", packed)
