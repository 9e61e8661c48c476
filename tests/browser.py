"""A page in headless Chromium, driven by the DevTools protocol over a pipe."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


class Browser:
    """Chromium with one tab; a context manager."""

    def __init__(self, profile: Path, *, width: int = 1200, height: int = 900) -> None:
        (hears, self._out), (self._in, speaks) = os.pipe(), os.pipe()
        # High numbers, so that the browser's own, 3 and 4, hide neither.
        pipes = [fcntl.fcntl(pipe, fcntl.F_DUPFD, 50) for pipe in (hears, speaks)]
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]
        flags += [f"--user-data-dir={profile}", f"--window-size={width},{height}", "about:blank"]
        redirected = f'exec "$0" "$@" 3<&{pipes[0]} 4>&{pipes[1]}'
        assert CHROMIUM is not None
        self._process = subprocess.Popen(
            ["bash", "-c", redirected, CHROMIUM, *flags], pass_fds=pipes, stderr=subprocess.DEVNULL
        )
        for pipe in (hears, speaks, *pipes):
            os.close(pipe)
        self._rest, self._number, self._session = b"", 0, ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Page.enable")
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **screen)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        os.close(self._out)
        os.close(self._in)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a DevTools method. Raises RuntimeError with the browser's words."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (answer := self._hear()).get("id") != self._number:
            pass
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return dict(answer["result"])

    def _hear(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            read = os.read(self._in, 1 << 20)
            if not read:
                raise RuntimeError("the browser ended")
            self._rest += read
        message, self._rest = self._rest.split(b"\0", 1)
        return dict(json.loads(message))

    def open(self, page: Path) -> None:
        """Open a page, wait until it is loaded and two frames are drawn."""
        self.call("Page.navigate", url=page.absolute().as_uri())
        while self._hear().get("method") != "Page.loadEventFired":
            pass
        self.ask("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(0))))")

    def ask(self, script: str) -> Any:
        """What an expression of the page gives, awaited. Raises RuntimeError with its exception."""
        found = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"])
        return found["result"].get("value")

    def press(self, key: str) -> None:
        """Press a key and let go."""
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def choose_file(self, selector: str, path: Path) -> None:
        """Choose a file in a file field."""
        found = self.call("Runtime.evaluate", expression=f"document.querySelector({json.dumps(selector)})")
        self.call("DOM.setFileInputFiles", files=[str(path)], objectId=found["result"]["objectId"])

    def picture(self, path: Path, *, scheme: str = "light") -> None:
        """Write a screenshot as PNG."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))
