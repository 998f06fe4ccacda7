"""Chromium without a window, driven by its DevTools protocol as a visitor would: links, buttons, fields.

Scripts are off in the pages. What a page asked for and did not get is an error, unless it is said to be expected.
"""

import base64
import ctypes
import itertools
import json
import queue
import re
import signal
import subprocess
import tempfile
import threading

from websockets.sync.client import connect

# How long a page may take on a busy machine. Whoever waits for us waits for 30 s, and is to hear why.
PATIENCE = 20


def ends_with_its_parent():
    """So that it does, also where that is killed."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


class Browser:
    """One page of one browser with a profile of its own."""

    def __init__(self, program):
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        flags += ["--disable-extensions", "--disable-background-networking", "--remote-debugging-port=0"]
        flags += ["--hide-scrollbars", "--force-device-scale-factor=1", f"--user-data-dir={self.profile.name}"]
        self.process = subprocess.Popen(
            [program, *flags, "about:blank"], stderr=subprocess.PIPE, text=True, preexec_fn=ends_with_its_parent
        )
        for line in self.process.stderr:
            if found := re.search(r"DevTools listening on (\S+)", line):
                break
        threading.Thread(target=self.process.stderr.read, daemon=True).start()
        self.socket = connect(found[1], max_size=None)
        self.numbers, self.session = itertools.count(1), None
        self.answers, self.loads, self.wrong = {}, queue.Queue(), []
        threading.Thread(target=self.listen, daemon=True).start()
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setScriptExecutionDisabled", value=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()
        self.process.terminate()
        self.process.wait()
        self.profile.cleanup()

    def listen(self):
        """Sorts what the browser says."""
        for text in self.socket:
            message = json.loads(text)
            match message.get("method"):
                case None:
                    self.answers.pop(message["id"]).put(message)
                case "Page.loadEventFired":
                    self.loads.put(True)
                case "Network.responseReceived" if message["params"]["response"]["status"] >= 400:
                    answer = message["params"]["response"]
                    # What browsers ask for by themselves where a page, such as Django's errors, has no icon.
                    if not answer["url"].endswith("/favicon.ico"):
                        self.wrong.append((answer["status"], answer["url"]))
                # Aborted is what a page still wanted, such as its icon, when the next one came.
                case "Network.loadingFailed" if message["params"]["errorText"] != "net::ERR_ABORTED":
                    self.wrong.append(("failed", message["params"]["errorText"]))

    def call(self, method, **parameters):
        """A command of the protocol."""
        number, answer = next(self.numbers), queue.Queue()
        self.answers[number] = answer
        message = {"id": number, "method": method, "params": parameters}
        self.socket.send(json.dumps(message | ({"sessionId": self.session} if self.session else {})))
        answer = answer.get(timeout=PATIENCE)
        assert "error" not in answer, f"{method}: {answer}"
        return answer["result"]

    def evaluate(self, expression):
        """What an expression of JavaScript is in the page. The page itself has no scripts."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, f"{expression}: {answer['exceptionDetails']}"
        return answer["result"].get("value")

    def arrive(self, expected=None):
        """Waits for the page that comes."""
        try:
            self.loads.get(timeout=PATIENCE)
        except queue.Empty:
            raise AssertionError(f"no page comes: {self.wrong}, {self.address()}: {self.text()}") from None
        wrong, self.wrong = self.wrong, []
        assert [status for status, _ in wrong] == ([expected] if expected else []), f"{wrong} at {self.address()}"

    def open(self, url, expected=None):
        """As with the address bar."""
        self.call("Page.navigate", url=url)
        self.arrive(expected)

    def press(self, label, expected=None):
        """Clicks a link or button with this label, where it is on the screen, and waits for the next page."""
        self.click(f"[...document.querySelectorAll('a, button')].filter(e => e.innerText === {json.dumps(label)})")
        self.arrive(expected)

    def fill(self, name, text):
        """Types into the field of this name."""
        self.click(f"document.querySelectorAll('input[name={name}]')")
        self.call("Input.insertText", text=text)

    def click(self, elements):
        place = self.evaluate(
            f"""(() => {{
                const found = [...{elements}].filter(e => !e.disabled);
                if (found.length !== 1) return `${{found.length}} of them in ` + document.body.innerText;
                found[0].scrollIntoView({{block: "nearest"}});
                const box = found[0].getBoundingClientRect(), x = box.x + box.width / 2, y = box.y + box.height / 2;
                return found[0].contains(document.elementFromPoint(x, y)) ? {{x, y}} : "covered by another";
            }})()"""
        )
        assert isinstance(place, dict), f"{elements}: {place}"
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)

    def address(self):
        return self.evaluate("location.href")

    def text(self):
        return self.evaluate("document.body.innerText")

    def screenshot(self, path, width, dark=False):
        """The whole page as a PNG; nothing may reach out of it to the right."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        wide = self.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{path} is {wide} pixels wide"
        picture = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(picture))
        self.call("Emulation.clearDeviceMetricsOverride")
