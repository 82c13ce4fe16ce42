"""A headless Chromium driven over the DevTools protocol, on two pipes: no package, no port."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",  # of a file that a test wrote; a container has no user namespaces
    "--no-zygote",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",  # it asks nobody outside for anything
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
    "--remote-debugging-pipe",
)
# Chromium reads commands from descriptor 3 and answers on 4; the first two may be these numbers.
LAUNCH = "import os,sys; r,w=map(int,sys.argv[1:3]); os.dup2(r,3); os.dup2(w,4);"
LAUNCH += "os.execv(sys.argv[3],sys.argv[3:])"
KEYS = {"ArrowLeft": 37, "ArrowRight": 39, "ArrowDown": 40, "ArrowUp": 38, "Escape": 27}


def find_chromium() -> str | None:
    """COHORT_CHROMIUM, or what `scripts/setup.sh` put into the virtual environment, or PATH's."""
    own = Path(sys.prefix) / "chromium" / "chromium"
    named = [os.environ.get("COHORT_CHROMIUM"), *([str(own)] if own.is_file() else []), *NAMES]
    return next((found for name in named if name and (found := shutil.which(name))), None)


class Chromium:
    """One page of one browser. `errors` holds what its console and its scripts complained of."""

    def __init__(self, program: str, width: int = 1440, height: int = 900):
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        ends = (*os.pipe(), *os.pipe())
        theirs, self._write, self._read, answers = (fcntl.fcntl(e, fcntl.F_DUPFD, 10) for e in ends)
        for end in ends:
            os.close(end)
        library = str(Path(program).parent / "lib")
        path = ":".join(filter(None, [library, os.environ.get("LD_LIBRARY_PATH")]))
        command = [program, *FLAGS, f"--user-data-dir={self._profile.name}", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, str(theirs), str(answers), *command],
            pass_fds=(theirs, answers),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"LD_LIBRARY_PATH": path},
        )
        os.close(theirs)
        os.close(answers)
        self._left, self._number, self._session = b"", 0, None
        pages = self.send("Target.getTargets")["targetInfos"]
        page = next(p["targetId"] for p in pages if p["type"] == "page")
        attached = self.send("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.resize(width, height)

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._write)
        os.close(self._read)
        self._profile.cleanup()

    def send(self, method: str, _wait: float = 120, **parameters: Any) -> dict[str, Any]:
        """One command and its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        whole = json.dumps(message).encode() + b"\0"
        while whole:
            whole = whole[os.write(self._write, whole) :]
        deadline = time.monotonic() + _wait
        while True:
            answer = self._next(deadline, method)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self._hear(answer)

    def resize(self, width: int, height: int, dark: bool = False) -> None:
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, address: str, ready: str = "window.cohort && cohort.ready") -> None:
        """Goes there and waits until the page says that it is ready."""
        self.send("Page.navigate", url="about:blank")
        self.send("Page.navigate", url=address)
        self.until(ready)

    def run(self, code: str) -> Any:
        """The value of a JavaScript expression; promises are awaited."""
        done = self.send("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in done:
            details = done["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description") or details["text"])
        return done["result"].get("value")

    def until(self, code: str, seconds: float = 60) -> Any:
        """Waits for a true value of the expression, and returns it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if value := self.run(code):
                return value
            time.sleep(0.02)
        raise TimeoutError(f"not within {seconds} s: {code}; errors: {self.errors}")

    def text(self, selector: str) -> str:
        return self.run(f"document.querySelector({json.dumps(selector)}).innerText")

    def click(self, selector: str, index: int = 0) -> None:
        """A real click in the middle of what the selector finds."""
        where = self.run(
            f"(() => {{ const e = document.querySelectorAll({json.dumps(selector)})[{index}];"
            "e.scrollIntoView({block: 'nearest', inline: 'nearest'});"
            "const b = e.getBoundingClientRect();"
            "return [b.x + b.width / 2, b.y + b.height / 2]})()"
        )
        self.mouse("mouseMoved", *where)
        self.mouse("mousePressed", *where)
        self.mouse("mouseReleased", *where)

    def mouse(self, kind: str, x: float, y: float) -> None:
        button = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
        self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button)

    def key(self, name: str) -> None:
        text = {"text": name} if len(name) == 1 else {}
        code = {"windowsVirtualKeyCode": KEYS[name]} if name in KEYS else {}
        self.send("Input.dispatchKeyEvent", type="keyDown", key=name, **text, **code)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=name, **code)

    def type(self, text: str) -> None:
        self.send("Input.insertText", text=text)

    def screenshot(self, path: Path) -> None:
        shot = self.send("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(shot["data"]))

    def _next(self, deadline: float, method: str) -> dict[str, Any]:
        while b"\0" not in self._left:
            if not select.select([self._read], [], [], max(0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"Chromium did not answer {method}")
            piece = os.read(self._read, 1 << 20)
            if not piece:
                raise RuntimeError(f"Chromium ended with {self._process.wait()} at {method}")
            self._left += piece
        whole, self._left = self._left.split(b"\0", 1)
        return json.loads(whole)

    def _hear(self, event: dict[str, Any]) -> None:
        kind, told = event.get("method"), event.get("params", {})
        if kind == "Runtime.exceptionThrown":
            details = told["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        elif kind == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.errors.append(told["entry"]["text"])
        elif kind == "Runtime.consoleAPICalled" and told["type"] in ("error", "assert"):
            self.errors.append(" ".join(str(a.get("value")) for a in told["args"]))
        elif kind == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
