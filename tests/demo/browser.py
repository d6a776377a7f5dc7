"""Chromium without a window, driven over the pipe of its DevTools protocol: nothing to install but the browser."""

import base64
import contextlib
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
    "--window-size=1280,1100",
    # What it would do over the network by itself, and a proxy of this machine's.
    "--disable-background-networking",
    "--disable-component-update",
    "--no-proxy-server",
    "--no-first-run",
)


class Browser:
    """A running browser; `requests` are the addresses that its pages asked for."""

    def __init__(self, to: int, of: int):
        self._to, self._of, self._ids = to, of, itertools.count(1)
        self._unread = b""
        self.requests: list[str] = []

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """A command of the protocol, and its result."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("method") == "Network.requestWillBeSent":
                self.requests.append(answer["params"]["request"]["url"])
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            if not select.select([self._of], [], [], 60)[0]:
                raise TimeoutError("the browser doesn't answer")
            self._unread += os.read(self._of, 1 << 20)
        message, _, self._unread = self._unread.partition(b"\0")
        return json.loads(message)


class Tab:
    """A tab with cookies and storage of its own, as another visitor's browser has."""

    def __init__(self, browser: Browser, address: str, downloads: Path):
        self._browser = browser
        visitor = browser.call("Target.createBrowserContext")["browserContextId"]
        browser.call(
            "Browser.setDownloadBehavior", behavior="allow", downloadPath=str(downloads), browserContextId=visitor
        )
        target = browser.call("Target.createTarget", url="about:blank", browserContextId=visitor)["targetId"]
        self._session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._call("Network.enable")
        self._call("Page.enable")
        self._call("Page.navigate", url=address)

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **parameters)

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page."""
        result = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{script}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def wait(self, script: str, seconds: float = 60) -> Any:
        """The value of an expression once it is true."""
        end = time.monotonic() + seconds
        while not (value := self.evaluate(script)):
            if time.monotonic() > end:
                raise TimeoutError(f"never true: {script}; the page: {self.evaluate('document.body.innerText')}")
            time.sleep(0.2)
        return value

    def upload(self, selector: str, *files: Path) -> Self:
        """Gives files to an input element."""
        self.wait(f"!!document.querySelector({selector!r})")
        handle = self._call("Runtime.evaluate", expression=f"document.querySelector({selector!r})")["result"]
        self._call("DOM.setFileInputFiles", objectId=handle["objectId"], files=[str(file.resolve()) for file in files])
        return self

    def click(self, selector: str) -> Self:
        """Clicks an element, once it is there."""
        self.wait(f"!!document.querySelector({selector!r})")
        self.evaluate(f"document.querySelector({selector!r}).click()")
        return self

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Moves the mouse with its button held."""
        held = {"button": "left", "buttons": 1, "clickCount": 1}
        self._call("Input.dispatchMouseEvent", type="mousePressed", x=start[0], y=start[1], **held)
        self._call("Input.dispatchMouseEvent", type="mouseMoved", x=end[0], y=end[1], **held)
        self._call("Input.dispatchMouseEvent", type="mouseReleased", x=end[0], y=end[1], **held)

    def screenshot(self, file: Path) -> None:
        """What the tab shows, as PNG."""
        file.write_bytes(base64.b64decode(self._call("Page.captureScreenshot")["data"]))


@contextlib.contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """A browser that ends with the block."""
    (their_end, to), (of, their_answers) = os.pipe(), os.pipe()

    # The browser takes its pipes as files 3 and 4; a shell puts them there, as a function between fork and exec may not
    # run beside JAX's threads.
    shell = ["bash", "-c", f'exec "$@" 3<&{their_end} 4>&{their_answers}', "bash"]
    process = subprocess.Popen(
        [*shell, CHROMIUM, *_OPTIONS, f"--user-data-dir={profile}"],
        pass_fds=(their_end, their_answers),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(their_end)
    os.close(their_answers)
    try:
        yield Browser(to, of)
    finally:
        process.terminate()
        process.wait(timeout=30)
        os.close(to)
        os.close(of)
