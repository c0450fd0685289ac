"""The report: what it says, and what a real browser makes of it."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from simserve.sweep.executors import InThisProcess
from simserve.sweep.expand import jobs_of
from simserve.sweep.report.answer import answer
from simserve.sweep.report.figures import figures_of
from simserve.sweep.report.findings import Findings, findings_of
from simserve.sweep.report.markdown import markdown
from simserve.sweep.report.publish import write_report
from simserve.sweep.rows import write_tables
from simserve.sweep.run import run_sweep
from simserve.sweep.spec import spec_from
from simserve.sweep.store import Store
from sweep.runs import fake

AXES = {"hardware": ["A100", "L4"], "max_num_seqs": [1, 2, 4]}
SLO = "ttft:p99=1s"
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def found(folder: Path, **spec: Any) -> Findings:
    jobs = jobs_of(spec_from({"axes": AXES} | spec, "here"))
    with Store(folder) as store:
        return findings_of(run_sweep(jobs, fake, InThisProcess(), store, lambda *_: None), "A title", "axes: {}")


def test_a_search_is_answered_with_the_least_money_what_binds_and_the_most(tmp_path: Path) -> None:
    first, *others = answer(found(tmp_path, slo=SLO, capacity={"of": "request_rate"}))
    assert re.match(r"L4, max num seqs 4 bears \d+\.\d+ requests/s within ttft:p99=1s \(0\.78 USD/h", first)
    assert others[0].startswith("Beyond that ttft:p99=1s gives way: ")
    assert any("is calibrated (±5%)" in sentence for sentence in others)


def test_a_grid_is_answered_with_how_many_meet_the_slo(tmp_path: Path) -> None:
    first, *_ = answer(found(tmp_path, slo="ttft:p99=50ms", base={"request_rate": 1}))
    assert first == "4 of 6 settings meet ttft:p99=50ms."


def test_where_nothing_meets_it_the_nearest_is_named(tmp_path: Path) -> None:
    first, second, *_ = answer(found(tmp_path, slo="ttft:p99=1ms", base={"request_rate": 1}))
    assert first == "Nothing meets ttft:p99=1ms."
    assert second == "Nearest comes A100, max num seqs 4: ttft:p99=1ms is 25 ms."


def test_a_search_that_finds_nothing_names_the_nearest(tmp_path: Path) -> None:
    search = {"of": "request_rate", "least": 1.0}
    first, second, *_ = answer(found(tmp_path, slo="ttft:p99=1ms", capacity=search))
    assert first == "Nothing meets ttft:p99=1ms."
    assert second.startswith("Nearest comes A100, max num seqs 4")


def test_settings_that_cannot_be_run_are_told(tmp_path: Path) -> None:
    sentences = answer(found(tmp_path, axes={"max_num_seqs": [1, 13]}))
    assert "1 settings cannot be run; for max num seqs 13: 13 brings bad luck; choose another number." in sentences
    assert answer(found(tmp_path / "b", axes={"max_num_seqs": [13]}))[0] == "No setting can be run."


def test_seeds_become_means_with_intervals(tmp_path: Path) -> None:
    findings = found(tmp_path, seeds=3)
    assert len(findings.rows) == 6
    assert len(findings.runs) == 18
    assert findings.rows[0]["p99_ttft_ms_ci95"] == 0.0
    assert "means over 3 seeds" in answer(findings)[-1]


def test_tables_have_a_row_for_each_run(tmp_path: Path) -> None:
    csv, parquet = write_tables(tmp_path, found(tmp_path, slo=SLO).runs)
    table = pyarrow.parquet.read_table(parquet)
    assert table.num_rows == 6 == len(csv.read_text().splitlines()) - 1
    assert table.column_names[:2] == ["hardware", "max_num_seqs"]
    assert all(text.startswith("simserve simulate ") for text in table["command"].to_pylist())


def test_charts_follow_from_what_there_is(tmp_path: Path) -> None:
    grid = figures_of(found(tmp_path, axes={**AXES, "request_rate": [1, 2, 3]}, slo=SLO))
    assert [figure.title for figure in grid] == [
        "Cost against latency", "Throughput per user and per device", "TTFT p99 against load",
        "TTFT p99, ms by hardware and max num seqs",
    ]  # fmt: skip
    curves = grid[2]
    assert len(curves.data) == 6
    assert curves.layout["shapes"][0]["y0"] == 1000.0


def test_markdown_begins_with_the_answer(tmp_path: Path) -> None:
    lines = markdown(found(tmp_path, slo=SLO)).splitlines()
    assert lines[0] == "## A title"
    assert lines[2] == "**6 of 6 settings meet ttft:p99=1s.**"
    assert sum(line.startswith("| ") for line in lines) == 8


def test_text_from_outside_stays_text(tmp_path: Path) -> None:
    findings = found(tmp_path, axes={"model": ["</script><script>alert(1)</script>", "b"]})
    page = write_report(findings, tmp_path)[0].read_text()
    assert "<script>alert" not in page


def browser_path() -> str | None:
    named = os.environ.get("SIMSERVE_TEST_BROWSER")
    return named or next((path for name in BROWSERS if (path := shutil.which(name))), None)


class TestInABrowser:
    """From the file, without a network."""

    async def test_the_answer_is_seen_at_once_and_sorting_and_tooltips_work(self, tmp_path: Path) -> None:
        playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed")
        path = write_report(found(tmp_path, slo=SLO, capacity={"of": "request_rate"}), tmp_path)[0]
        async with playwright.async_playwright() as driver:
            try:
                browser = await driver.chromium.launch(executable_path=browser_path())
            except playwright.Error as error:
                pytest.skip(f"no browser can be started: {str(error).splitlines()[0]}")
            context = await browser.new_context(viewport={"width": 1280, "height": 800}, offline=True)
            page = await context.new_page()
            complaints: list[str] = []
            requests: list[str] = []
            page.on("console", lambda message: complaints.append(message.text))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("request", lambda request: requests.append(request.url))
            await page.goto(path.as_uri())
            box = await page.locator("#answer").bounding_box()
            assert box is not None
            assert box["y"] + box["height"] < 800
            await self._sort(page)
            await self._hover(page)
            assert complaints == []
            assert requests == [path.as_uri()]
            await browser.close()

    @staticmethod
    async def _sort(page: Any) -> None:
        column = [*await page.locator("#rows th").all_inner_texts()].index("max num seqs")
        for up in (True, False):
            await page.locator("#rows th button").nth(column).click()
            cells = await page.locator(f"#rows tbody td:nth-child({column + 1})").all_inner_texts()
            assert cells == sorted(cells, reverse=not up)

    @staticmethod
    async def _hover(page: Any) -> None:
        point = page.locator("#chart-0 .points path").first
        await point.wait_for()
        await point.hover(force=True)
        await page.locator("#chart-0 .hovertext").first.wait_for()
        assert "USD per million output tokens" in str(await page.locator("#chart-0 .hovertext").first.text_content())
