"""Pages in real headless Chromium, driven over its pipe: what it shows, asks of the network, complains of, looks like.

No package is needed for it: messages of the DevTools protocol are JSON with a zero byte after each.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Self

import pytest

__all__ = ["Browser", "axe_source", "browser_or_skip", "serious_faults"]

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)


def browser_or_skip() -> Browser:
    """A browser. Where none is installed the test is skipped, and fails where LRGLS_BROWSER is set."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        _missing("chromium is not installed: apt-get install chromium")
    return Browser(str(found))


def axe_source() -> str:
    """The script of axe-core, from the folder that npm installed it in, LRGLS_AXE."""
    path = Path(os.environ.get("LRGLS_AXE", "")) / "node_modules" / "axe-core" / "axe.min.js"
    if not path.is_file():
        _missing("axe-core is not installed: npm install --prefix FOLDER axe-core, and LRGLS_AXE=FOLDER")
    return path.read_text(encoding="utf-8")


def _missing(why: str) -> None:
    if os.environ.get("LRGLS_BROWSER"):
        pytest.fail(why)
    pytest.skip(why)


class Browser:
    """One process and one page. `requests` and `complaints` are those since the last `open`."""

    def __init__(self, program: str) -> None:
        self._profile = tempfile.TemporaryDirectory(prefix="lrgls-browser-", ignore_cleanup_errors=True)
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        # the browser reads from descriptor 3 and writes to 4
        command = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        flags = (*FLAGS, f"--user-data-dir={self._profile.name}", "about:blank")
        self._process = subprocess.Popen(
            ["bash", "-c", command, "bash", program, *flags],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._out, self._in = os.fdopen(ours_out, "wb", buffering=0), os.fdopen(ours_in, "rb")
        self._numbers = itertools.count(1)
        self._held = b""
        self._session = ""
        self._loaded = False
        self.requests: list[str] = []
        self.complaints: list[str] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.ask(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """End the process and forget its profile."""
        self._session = ""
        with contextlib.suppress(OSError):
            self.ask("Browser.close")
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._out.close()
        self._in.close()
        self._profile.cleanup()

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """The answer to one call of the protocol. Raises RuntimeError for one that is an error."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        while True:
            got = self._next()
            if got.get("id") == number:
                if "error" in got:
                    raise RuntimeError(f"{method}: {got['error']['message']}")
                return dict(got["result"])

    def _next(self) -> dict[str, Any]:
        """The next message, after what it says has been noted."""
        while b"\0" not in self._held:
            piece = os.read(self._in.fileno(), 1 << 20)
            if not piece:
                raise OSError("the browser has ended")
            self._held += piece
        text, _, self._held = self._held.partition(b"\0")
        got: dict[str, Any] = json.loads(text)
        params = got.get("params", {})
        match got.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Runtime.exceptionThrown":
                self.complaints.append(str(params["exceptionDetails"].get("exception", {}).get("description")))
            case "Log.entryAdded":
                self.complaints.append(str(params["entry"]["text"]))
            case "Runtime.consoleAPICalled":
                self.complaints.append(str([each.get("value") for each in params["args"]]))
        return got

    def look(self, width: int = 1280, height: int = 900, *, dark: bool = False, still: bool = False) -> None:
        """What later pages are seen on.  still : by somebody who asks for no motion."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.ask("Emulation.setDeviceMetricsOverride", **size)
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if still else "no-preference"},
        ]
        self.ask("Emulation.setEmulatedMedia", features=features)

    def open(self, address: str | Path, *, scripts: bool = True) -> None:
        """Go to a file or a URL, and wait until it is loaded."""
        self.ask("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.requests.clear()
        self.complaints.clear()
        self._loaded = False
        self.ask("Page.navigate", url=address.resolve().as_uri() if isinstance(address, Path) else address)
        while not self._loaded:
            self._next()

    def value(self, expression: str) -> Any:
        """Of an expression of JavaScript, awaited. Raises RuntimeError with what it throws."""
        how = {"returnByValue": True, "awaitPromise": True, "userGesture": True}
        got = self.ask("Runtime.evaluate", expression=expression, **how)
        if "exceptionDetails" in got:
            raise RuntimeError(str(got["exceptionDetails"].get("exception", {}).get("description")))
        return got["result"].get("value")

    def press(self, key: str, code: int, text: str = "") -> None:
        """A key, as from the keyboard."""
        how: dict[str, Any] = {"key": key, "windowsVirtualKeyCode": code}
        self.ask("Input.dispatchKeyEvent", type="keyDown", **how, **({"text": text} if text else {}))
        self.ask("Input.dispatchKeyEvent", type="keyUp", **how)

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """Write what is seen as PNG; the whole page, or its window."""
        got = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(got["data"]))


def serious_faults(browser: Browser, axe: str) -> list[str]:
    """What axe-core finds serious or critical in the page that is open: rule, how many, and the first of them."""
    browser.value(f"{axe}; void 0")
    found = browser.value("axe.run(document, {resultTypes: ['violations']}).then((found) => found.violations)")
    return [
        f"{each['id']} ({each['impact']}) {len(each['nodes'])}: {each['nodes'][0]['html'][:200]} "
        f"{each['nodes'][0]['failureSummary']}"
        for each in found
        if each["impact"] in ("serious", "critical")
    ]
