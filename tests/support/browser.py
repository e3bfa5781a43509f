"""A page in a real browser, by the DevTools protocol: what it asks for, says, and looks like."""

from __future__ import annotations

import asyncio
import base64
import itertools
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

#: A phone and a desk: width and height in CSS pixels.
PHONE, DESK = (390, 844), (1280, 800)


@dataclass
class Look:
    """What a browser tells of a page.

    Attributes:
        said: errors and other lines of the console.
        asked: addresses of all requests, the page's own first.
        found: values of the expressions, in their order.
        picture: PNG of the first screen.
    """

    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    found: list[Any] = field(default_factory=list)
    picture: bytes = b""


def look(url: str, profile: Path, size: tuple[int, int], *expressions: str) -> Look:
    """Open a page and evaluate JavaScript expressions in it, which its own rules do not bind."""
    command = [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu",
               "--disable-dev-shm-usage", "--no-first-run", f"--user-data-dir={profile}",
               "--remote-debugging-port=0", "about:blank"]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        return asyncio.run(_look(url, profile, size, expressions))
    finally:
        process.terminate()
        process.wait(20)


async def _look(
    url: str, profile: Path, size: tuple[int, int], expressions: tuple[str, ...]
) -> Look:
    port_file, deadline = profile / "DevToolsActivePort", time.monotonic() + 60
    while not (port_file.is_file() and port_file.read_text().strip()):
        assert time.monotonic() < deadline, "the browser did not start"
        await asyncio.sleep(0.1)
    base = f"http://127.0.0.1:{port_file.read_text().split()[0]}"
    seen, numbers = Look(), itertools.count(1)
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{base}/json") as answer:
            (tab,) = [each for each in await answer.json() if each["type"] == "page"]
        async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=2**27) as socket:

            async def wait_for(event: str | None = None, number: int | None = None) -> Any:
                while True:
                    message = await asyncio.wait_for(socket.receive_json(), 60)
                    _note(seen, message)
                    if number is not None and message.get("id") == number:
                        return message["result"]
                    if event is not None and message.get("method") == event:
                        return message["params"]

            async def ask(method: str, **params: Any) -> Any:
                number = next(numbers)
                await socket.send_json({"id": number, "method": method, "params": params})
                return await wait_for(number=number)

            for domain in ("Page", "Network", "Log", "Runtime"):
                await ask(f"{domain}.enable")
            width, height = size
            await ask(
                "Emulation.setDeviceMetricsOverride",
                width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
            )  # fmt: skip
            await socket.send_json(
                {"id": next(numbers), "method": "Page.navigate", "params": {"url": url}}
            )
            await wait_for(event="Page.loadEventFired")
            for expression in expressions:
                result = await ask("Runtime.evaluate", expression=expression, returnByValue=True)
                assert "exceptionDetails" not in result, result
                seen.found.append(result["result"].get("value"))
            shot = await ask("Page.captureScreenshot", format="png")
            seen.picture = base64.b64decode(shot["data"])
    return seen


def _note(seen: Look, message: dict[str, Any]) -> None:
    """Remember what a message of the browser tells."""
    params = message.get("params", {})
    match message.get("method"):
        case "Network.requestWillBeSent":
            seen.asked.append(params["request"]["url"])
        case "Log.entryAdded":
            seen.said.append(params["entry"]["text"])
        case "Runtime.consoleAPICalled":
            seen.said.append(" ".join(str(each.get("value")) for each in params["args"]))
        case "Runtime.exceptionThrown":
            seen.said.append(params["exceptionDetails"]["text"])
