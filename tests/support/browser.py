"""A headless Chromium, driven over W3C WebDriver: only what the tests of the page need.

Use it to look at a page as its readers do. It opens nothing but files and 127.0.0.1.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

START_SECS, WAIT_SECS = 60, 30
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--hide-scrollbars", "--force-color-profile=srgb",
]  # fmt: skip
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def why_not() -> str | None:
    """Why no browser can be started here, or None."""
    if CHROMIUM is None:
        return "Chromium is not installed (Debian's package chromium)"
    if shutil.which("chromedriver") is None:
        return "ChromeDriver is not installed (Debian's package chromium-driver)"
    return None


class Browser:
    """One session with one window."""

    def __init__(self, address: str) -> None:
        self._address = f"{address}/session"
        options = {"binary": CHROMIUM, "args": ARGUMENTS}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"performance": "ALL"}}
        session = self._call("POST", "", {"capabilities": {"alwaysMatch": wanted}})
        self._address += f"/{session['sessionId']}"

    def _call(self, method: str, path: str, body: dict | None = None) -> Any:
        request = urllib.request.Request(
            self._address + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with OPENER.open(request, timeout=START_SECS) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{path}: {json.load(error)['value']['message']}") from None

    def quit(self) -> None:
        self._call("DELETE", "")

    def open(self, page: Path, fragment: str = "") -> None:
        """Open a file afresh, also where only the fragment differs."""
        self._call("POST", "/url", {"url": "about:blank"})
        self._call("POST", "/url", {"url": page.as_uri() + fragment})

    def run(self, script: str, *arguments: object) -> Any:
        """Return the result of a function body with this text."""
        return self._call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def wait_for(self, condition: str) -> None:
        """Wait until this expression is true."""
        deadline = time.monotonic() + WAIT_SECS
        while not self.run(f"return Boolean({condition})"):
            assert time.monotonic() < deadline, f"in vain waited for {condition}"
            time.sleep(0.02)

    def settle(self) -> None:
        """Wait until two frames have been painted."""
        script = (
            "const [done] = arguments; requestAnimationFrame(() => requestAnimationFrame(done))"
        )
        self._call("POST", "/execute/async", {"script": script, "args": []})

    def click_at(self, x: float, y: float, *, shift: bool = False) -> None:
        """A real click of the mouse at this place of the window."""
        mouse = [
            {"type": "pointerMove", "x": round(x), "y": round(y)},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        ]
        pointer = {"type": "pointer", "id": "mouse", "actions": mouse}
        pause = {"type": "pause"}
        keys = [{"type": "keyDown", "value": "\ue008"}, pause, {"type": "keyUp", "value": "\ue008"}]
        held = [{"type": "key", "id": "keys", "actions": keys}] if shift else []
        if shift:  # the key goes down before the button and up after it
            mouse.append(pause)
            keys.insert(1, pause)
        self._call("POST", "/actions", {"actions": [*held, pointer]})
        self.settle()

    def drag(self, *paths: tuple[tuple[int, int], tuple[int, int]], kind: str = "mouse") -> None:
        """Move the mouse, or one finger a path, from here to there, pressed down."""
        sources = []
        for number, (start, end) in enumerate(paths):
            steps: list[dict] = [
                {"type": "pointerMove", "x": start[0], "y": start[1]},
                {"type": "pointerDown", "button": 0},
                {"type": "pointerMove", "x": end[0], "y": end[1], "duration": 100},
                {"type": "pointerUp", "button": 0},
            ]
            how = {"parameters": {"pointerType": kind}, "actions": steps}
            sources.append({"type": "pointer", "id": f"{kind}{number}"} | how)
        self._call("POST", "/actions", {"actions": sources})
        self.settle()

    def wheel(self, x: int, y: int, turn: int, *, with_control: bool = False) -> None:
        """Turn the wheel of the mouse at this place of the window."""
        scroll = {"type": "scroll", "x": x, "y": y, "deltaX": 0, "deltaY": turn, "duration": 0}
        pause = {"type": "pause"}
        keys = [{"type": "keyDown", "value": "\ue009"}, pause, {"type": "keyUp", "value": "\ue009"}]
        held = [{"type": "key", "id": "keys", "actions": keys}] if with_control else []
        turned = [pause, scroll, pause] if with_control else [scroll]
        sources = [*held, {"type": "wheel", "id": "wheel", "actions": turned}]
        self._call("POST", "/actions", {"actions": sources})
        self.settle()

    def click(self, selector: str) -> None:
        self._call("POST", f"/element/{self._element(selector)}/click", {})
        self.settle()

    def type(self, selector: str, text: str) -> None:
        self._call("POST", f"/element/{self._element(selector)}/value", {"text": text})
        self.settle()

    def _element(self, selector: str) -> str:
        found = self._call("POST", "/element", {"using": "css selector", "value": selector})
        return found[ELEMENT]

    def look(
        self,
        width: int,
        height: int,
        *,
        dark: bool = False,
        phone: bool = False,
        prints: bool = False,
    ) -> None:
        """The size and kind of the screen, or paper, and whether its user likes it dark."""
        size = {"width": width, "height": height, "mobile": phone}
        scale = {"deviceScaleFactor": 2 if phone else 1}
        self._devtools("Emulation.setDeviceMetricsOverride", size | scale)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        media = {"media": "print" if prints else "", "features": [scheme]}
        self._devtools("Emulation.setEmulatedMedia", media)

    def pages_when_printed(self) -> int:
        data = base64.b64decode(self._call("POST", "/print", {}))
        return len(re.findall(rb"/Type\s*/Page\b", data))

    def picture(self) -> bytes:
        """The window as a PNG."""
        self.settle()
        return base64.b64decode(self._call("GET", "/screenshot"))

    def requests(self) -> list[str]:
        """The addresses that were asked for since the last call."""
        entries = self._call("POST", "/se/log", {"type": "performance"})
        messages = [json.loads(entry["message"])["message"] for entry in entries]
        sent = [m for m in messages if m["method"] == "Network.requestWillBeSent"]
        return [message["params"]["request"]["url"] for message in sent]

    def _devtools(self, command: str, parameters: dict) -> None:
        self._call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})


@contextmanager
def browsing() -> Iterator[Browser]:
    """A browser that ends with the block."""
    with subprocess.Popen(
        ["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as driver:
        try:
            browser = Browser(_address(driver))
            try:
                yield browser
            finally:
                browser.quit()
        finally:
            driver.kill()


def _address(driver: subprocess.Popen) -> str:
    for line in driver.stdout:
        if found := re.search(r"started successfully on port (\d+)", line):
            return f"http://127.0.0.1:{found[1]}"
    raise RuntimeError("chromedriver did not start")
