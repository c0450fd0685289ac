"""The page of the API in a real browser: it shows every endpoint, and asks nobody but this server."""

from __future__ import annotations

import pytest

from server.dashboard.test_browser import is_there, system_browser
from server.serving import serving

playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed: pip install playwright")


async def test_the_page_shows_the_endpoints_without_a_network() -> None:
    async with serving() as client, playwright.async_playwright() as driver:
        url = f"{client.session._base_url}".rstrip("/")
        if system_browser() is None and not is_there(driver.chromium.executable_path):
            pytest.skip("there is no Chromium: playwright install chromium, or apt-get install chromium-headless-shell")
        browser = await driver.chromium.launch(executable_path=system_browser(), args=["--no-sandbox"])
        try:
            page = await browser.new_page(viewport={"width": 1280, "height": 1000})
            complaints: list[str] = []
            asked: list[str] = []
            page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("request", lambda request: asked.append(request.url))
            await page.goto(f"{url}/docs")
            await page.wait_for_selector("#operations-models-post_v1_chat_completions", timeout=30_000)
            shown = await page.locator(".opblock").count()
            operations = sum(len(methods) for methods in (await client.get("/openapi.json"))["paths"].values())
            assert shown == operations
            await page.click("#operations-server-get_version .opblock-summary")
            await page.click("#operations-server-get_version .try-out__btn")
            await page.click("#operations-server-get_version .execute")
            await page.wait_for_selector("#operations-server-get_version .live-responses-table", timeout=30_000)
        finally:
            await browser.close()
    assert complaints == []
    assert all(one.startswith((url, "data:")) for one in asked), asked
