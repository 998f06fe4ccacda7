import subprocess
import sys
import tempfile
import unittest
import zipfile
from pathlib import Path

PROJECT = Path(__file__).parents[1]


class Wheel(unittest.TestCase):
    def test_a_wheel_builds_and_installs_without_anything_else(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
            # The build backend is installed beside the tests: nothing is fetched.
            build = ["wheel", "--no-index", "--no-deps", "--no-build-isolation"]
            subprocess.run([*pip, *build, "--wheel-dir", folder, PROJECT], check=True)
            (wheel,) = Path(folder).glob("*.whl")
            self.assertEqual(wheel.name, "session_gateway_upstream-0.1.0-py3-none-any.whl")
            names = set(zipfile.ZipFile(wheel).namelist())
            for name in (
                "py.typed",
                "asgi.py",
                "aiohttp.py",
                "wsgi.py",
                "fastapi.py",
                "flask.py",
                "jwks.py",
                "testing.py",
            ):
                self.assertIn(f"session_gateway_upstream/{name}", names)
            self.assertTrue(any(name.endswith("licenses/LICENSE-MIT") for name in names))
            self.assertFalse(
                [name for name in names if "test" in Path(name).parent.name or "test_" in name]
            )
            target = str(Path(folder) / "installed")
            subprocess.run([*pip, "install", "--no-index", "--target", target, wheel], check=True)
            # No framework: only what needs none.
            program = (
                "import sys; sys.path = [p for p in sys.path if 'site-packages' not in p];"
                f"sys.path.insert(0, {target!r});"
                "import session_gateway_upstream as s, session_gateway_upstream.asgi,"
                "session_gateway_upstream.wsgi; print(s.__version__, s.__file__)"
            )
            found = subprocess.run(
                [sys.executable, "-I", "-c", program], check=True, capture_output=True, text=True
            ).stdout
            self.assertTrue(found.startswith(f"0.1.0 {target}"), found)


if __name__ == "__main__":
    unittest.main()
