"""A Chromium without a window, driven through its remote debugging pipe. Standard library only.

    with Browser() as browser:          # raises Absent where there is none
        page = browser.open("file:///tmp/report.html", width=1280)
        page.evaluate("document.title")
        page.screenshot("/tmp/page.png")

Everything has a deadline. What the page said on its console, threw, or asked the network for is
kept in page.complaints and page.requests. The process that was started is ended by its id.
"""
import base64
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

# The pipe is descriptors 3 (in) and 4 (out) of the browser, whatever their numbers are here.
WITH_PIPE = """import fcntl, os, sys
ends = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 20) for fd in sys.argv[1:3]]
os.dup2(ends[0], 3)
os.dup2(ends[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


class Absent(Exception):
    """There is no browser here."""


class Browser:
    def __init__(self, seconds=60):
        program = next((p for p in map(shutil.which, NAMES) if p), None)
        if not program:
            raise Absent("no Chromium is installed (Debian: apt-get install chromium)")
        self.folder = tempfile.mkdtemp(prefix="headway-browser-")
        self.deadline = time.monotonic() + seconds
        to_read, self.write = os.pipe()
        self.read, to_write = os.pipe()
        options = ["--headless=new", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
                   "--disable-extensions", "--disable-background-networking", "--disable-sync",
                   "--disable-component-update", "--disable-crash-reporter", "--remote-debugging-pipe",
                   "--user-data-dir=" + self.folder]
        if os.getuid() == 0:
            options.append("--no-sandbox")
        self.process = subprocess.Popen([sys.executable, "-c", WITH_PIPE, str(to_read),
                                         str(to_write), program, *options],
                                        pass_fds=(to_read, to_write), start_new_session=True,
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        os.close(to_read)
        os.close(to_write)
        self.buffer, self.last_id, self.pages = b"", 0, {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        try:
            self.call("Browser.close", {})
            self.process.wait(5)
        except (OSError, TimeoutError, RuntimeError, subprocess.TimeoutExpired):
            pass
        try:  # its own group alone
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        os.close(self.read)
        os.close(self.write)
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- messages -------------------------------------------------------------------

    def receive(self):
        """One message; TimeoutError behind the deadline."""
        while b"\0" not in self.buffer:
            left = self.deadline - time.monotonic()
            if left <= 0 or not select.select([self.read], [], [], left)[0]:
                raise TimeoutError("the browser did not answer in time")
            part = os.read(self.read, 1 << 20)
            if not part:
                raise RuntimeError("the browser ended")
            self.buffer += part
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, params, session=None):
        self.last_id += 1
        message = {"id": self.last_id, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == message["id"]:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            page = self.pages.get(answer.get("sessionId"))
            if page and "method" in answer:
                page.note(answer["method"], answer["params"])

    def open(self, address, width=1280, height=900, scheme="light"):
        target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})
        page = Page(self, session["sessionId"])
        self.pages[session["sessionId"]] = page
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(domain + ".enable")
        page.call("Page.addScriptToEvaluateOnNewDocument", # such as loops of observers
                  source="addEventListener('error', (e) => console.error(e.message))")
        page.resize(width, height)
        page.prefer(scheme)
        page.call("Page.navigate", url=address)
        page.wait("document.documentElement?.dataset.ready === 'yes'")
        return page


class Page:
    def __init__(self, browser, session):
        self.browser, self.session = browser, session
        self.complaints, self.requests = [], []

    def note(self, method, params):
        if method == "Runtime.exceptionThrown":
            detail = params["exceptionDetails"]
            self.complaints.append(detail.get("exception", {}).get("description", detail["text"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(params["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.complaints.append(str(params["args"]))
        elif method == "Page.javascriptDialogOpening":
            self.complaints.append("a dialog: " + params["message"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    def call(self, method, **params):
        return self.browser.call(method, params, self.session)

    def evaluate(self, script):
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True,
                           awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{script}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def wait(self, condition, seconds=20):
        end = time.monotonic() + seconds
        while not self.evaluate(condition):
            if time.monotonic() > end:
                raise TimeoutError(f"not within {seconds} s: {condition}; {self.complaints}")
            time.sleep(0.01)

    def frame(self):
        """Until what was changed is on the screen."""
        self.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame("
                      "() => done(true))))")

    def resize(self, width, height):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=width < 500)

    def prefer(self, scheme):
        self.call("Emulation.setEmulatedMedia",
                  features=[{"name": "prefers-color-scheme", "value": scheme}])

    def mouse(self, kind, x, y, **more):
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def drag(self, x0, y0, x1, y1):
        self.mouse("mouseMoved", x0, y0)
        self.mouse("mousePressed", x0, y0, button="left", buttons=1, clickCount=1)
        for i in range(1, 5):
            self.mouse("mouseMoved", x0 + (x1 - x0) * i / 4, y0 + (y1 - y0) * i / 4,
                       button="left", buttons=1)
        self.mouse("mouseReleased", x1, y1, button="left", clickCount=1)
        self.frame()

    def key(self, key, **more):
        text = key if len(key) == 1 else ""
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, text=text, **more)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, **more)
        self.frame()

    def box(self, selector):
        """Of an element that is scrolled into the middle: x, y, width, height."""
        return self.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({ block: 'center', behavior: 'instant' });"
            "const b = e.getBoundingClientRect(); return [b.x, b.y, b.width, b.height]; })()")

    def screenshot(self, path, whole=True):
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        with open(path, "wb") as f:
            f.write(base64.b64decode(shot["data"]))
