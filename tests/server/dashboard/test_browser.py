"""The dashboard in a real browser: numbers move, buttons work, nothing leaves this machine.

Needs playwright and a Chromium: playwright's own, the system's, or the one that ``SIMSERVE_TEST_BROWSER`` names.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import pytest

from simserve.config import EngineOptions
from simserve.engines import ClusterEngine
from simserve.hardware import load_hardware
from simserve.models import load_model
from simserve.server.run import listening
from simserve.server.service import Service
from simserve.server.simulated import simulated_over, simulated_service
from simserve.simulation.cluster import cluster_of, prepare_groups

playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed: pip install playwright")

SYSTEM_BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WITHIN_S = 15.0


def system_browser() -> str | None:
    named = os.environ.get("SIMSERVE_TEST_BROWSER")
    return named or next((path for name in SYSTEM_BROWSERS if (path := shutil.which(name))), None)


def is_there(path: str) -> bool:
    return os.path.exists(path)


@dataclass
class Look:
    """A page that somebody looks at, and all that went wrong or out."""

    page: playwright.Page
    service: Service
    url: str
    session: aiohttp.ClientSession
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    async def text(self, name: str) -> str:
        return str(await self.page.inner_text(f"#{name}"))

    async def number(self, name: str) -> float:
        return float((await self.text(name)).replace(",", "").removesuffix(" s"))

    async def complete(self, tokens: int) -> None:
        body = {"prompt": [3] * 100, "max_tokens": tokens}
        async with self.session.post(f"{self.url}/v1/completions", json=body) as response:
            await response.read()


@asynccontextmanager
async def looking(colours: str = "light", replicas: int | None = None) -> AsyncIterator[Look]:
    model, hardware = load_model("meta-llama/Llama-3.1-8B-Instruct"), load_hardware("A100")
    service = simulated_service(model, hardware, EngineOptions(), 1.0)
    if replicas is not None:
        spec = cluster_of({"groups": [{"name": "all", "replicas": replicas}]}, "test")
        engine = ClusterEngine(spec, prepare_groups(spec, model, hardware, EngineOptions()), 1.0)
        service = simulated_over(model, engine)
    async with (
        listening(service, "127.0.0.1", 0) as url,
        aiohttp.ClientSession() as session,
        playwright.async_playwright() as driver,
    ):
        browser_path = system_browser()
        if browser_path is None and not is_there(driver.chromium.executable_path):
            pytest.skip("there is no Chromium: playwright install chromium, or apt-get install chromium-headless-shell")
        browser = await driver.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = await browser.new_page(color_scheme=colours, viewport={"width": 1280, "height": 1000})
        look = Look(page, service, url, session)
        page.on("console", lambda message: look.complaints.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: look.complaints.append(str(error)))
        page.on("request", lambda request: look.requests.append(request.url))
        await page.goto(f"{url}/dashboard")
        try:
            yield look
        finally:
            await browser.close()
    assert look.complaints == []
    assert [where for where in look.requests if not where.startswith(url)] == []


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def shows(look: Look, name: str, least: float) -> None:
    """Wait until the page shows a number of at least ``least``."""

    async def is_shown() -> bool:
        return await look.text(name) not in ("", "–") and await look.number(name) >= least

    await until(is_shown)


async def test_numbers_move_while_requests_run() -> None:
    async with looking() as look:
        assert "Llama-3.1-8B-Instruct on A100" in await look.text("about")
        running = [asyncio.create_task(look.complete(120)) for _ in range(5)]
        await shows(look, "running", 5)
        await shows(look, "output", 50)
        await shows(look, "itl", 1)
        await shows(look, "kv", 0.1)
        clock_s = await look.number("clock")
        await asyncio.gather(*running)
        await shows(look, "clock", clock_s + 0.5)

        async def is_idle() -> bool:
            return await look.text("running") == "0"

        await until(is_idle)
        assert (await look.text("finished")).startswith("5 finished")
        events = await look.text("events")
        assert events.count("arrived") == events.count("finished") == 5
        drawn = await look.page.evaluate(
            """[...document.querySelectorAll("canvas")].map((canvas) => {
                const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
                return new Set(new Uint32Array(data.buffer)).size;
            })"""
        )
        assert len(drawn) == 6
        assert min(drawn) > 10  # more than a grid on an empty ground


async def test_a_cluster_is_shown_replica_by_replica() -> None:
    async with looking(replicas=3) as look:
        assert "Llama-3.1-8B-Instruct on 3 replicas, router round-robin" in await look.text("about")
        async with look.session.post(f"{look.url}/cluster/replicas/all/1/kill") as response:
            assert response.status == 200
        running = [asyncio.create_task(look.complete(200)) for _ in range(4)]
        await shows(look, "running", 4)

        async def is_told() -> bool:
            rows = (await look.text("replicas")).splitlines()
            return [row.split("\t")[:4] for row in rows] == [
                ["all/0", "ready", "2", "0"],
                ["all/1", "stopped", "0", "0"],
                ["all/2", "ready", "2", "0"],
            ]

        await until(is_told)
        await asyncio.gather(*running)


async def test_the_clock_is_held_and_goes_on() -> None:
    async with looking() as look:
        running = asyncio.create_task(look.complete(100))
        await shows(look, "running", 1)
        await look.page.click("#hold")
        await until(lambda: says(look, "state", "paused"))
        assert look.service.engine.clock.is_paused  # type: ignore[attr-defined]
        await asyncio.sleep(0.6)
        held_s = await look.number("clock")
        await asyncio.sleep(0.6)
        assert await look.number("clock") == held_s
        assert not running.done()
        assert await look.text("hold") == "Start"
        await look.page.click("#hold")
        await until(lambda: says(look, "state", "running"))
        await running


async def test_its_speed_is_chosen() -> None:
    async with looking() as look:
        await look.page.select_option("#speed", "10")

        async def is_faster() -> bool:
            return bool(look.service.engine.clock.time_scale == 10)  # type: ignore[attr-defined]

        await until(is_faster)
        look.service.engine.set_time_scale(3.0)  # type: ignore[attr-defined]  # by somebody else

        async def shows_it() -> bool:
            return str(await look.page.input_value("#speed")) == "3"

        await until(shows_it)


async def says(look: Look, name: str, what: str) -> bool:
    return await look.text(name) == what


@pytest.mark.parametrize("colours", ["light", "dark"])
async def test_it_can_be_read_in_light_and_dark(colours: str) -> None:
    """Text stands out from its ground by 4.5 to 1 at least, as the accessibility guidelines (WCAG AA) ask."""
    async with looking(colours) as look:
        await look.complete(3)
        await look.page.wait_for_selector("td.finished")
        contrast = """(names) => {
            const channel = (value) => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
            const light = (css) => css.match(/[0-9.]+/g).slice(0, 3).map((part) => channel(part / 255))
                .reduce((sum, one, at) => sum + one * [0.2126, 0.7152, 0.0722][at], 0);
            const ground = light(getComputedStyle(document.querySelector(".tile")).backgroundColor);
            return names.map((name) => {
                const ink = light(getComputedStyle(document.querySelector(name)).color);
                return (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
            });
        }"""
        names = ["h1", "#about", "small", "#output", "#hold", "#state", "td.arrived", "td.finished"]
        for name, ratio in zip(names, await look.page.evaluate(contrast, names), strict=True):
            assert ratio >= 4.5, name
        ground = await look.page.evaluate("getComputedStyle(document.body).backgroundColor")
        await look.page.click("#theme")
        assert await look.page.evaluate("getComputedStyle(document.body).backgroundColor") != ground
