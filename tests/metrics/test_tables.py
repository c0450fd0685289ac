"""What a person sees at the end of a run."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

import numpy as np
from rich.console import Console

from simserve.metrics.bands import Band, Bands
from simserve.metrics.records import Records, RunDescription, RunTotals, TokenGaps
from simserve.metrics.summary import summarize
from simserve.metrics.tables import report

NO_BANDS = Bands("not made")


def shown(
    records: Records,
    totals: RunTotals,
    description: RunDescription,
    percentiles: tuple[float, ...],
    bands: Bands = NO_BANDS,
) -> str:
    console = Console(file=StringIO(), width=100)
    console.print(report(summarize(records, totals, percentiles), description, bands))
    return console.file.getvalue()


def test_latencies_have_a_line_each_in_milliseconds(
    records: Records, totals: RunTotals, description: RunDescription
) -> None:
    lines = [line.split() for line in shown(records, totals, description, (50, 100)).splitlines()]

    assert ["latency,", "ms", "values", "mean", "p50", "p100"] in lines
    assert ["TTFT", "3", "3,000.00", "3,000.00", "5,000.00"] in lines
    assert ["TPOT", "2", "300.00", "300.00", "500.00"] in lines
    assert ["ITL", "22", "318.18", "500.00", "500.00"] in lines
    assert ["E2E", "3", "5,333.33", "5,000.00", "9,000.00"] in lines


def test_a_band_stands_below_its_latency_and_beside_its_total(
    records: Records, totals: RunTotals, description: RunDescription
) -> None:
    bands = Bands("twice", {"mean_ttft_ms": Band(2500.4, 3999.6), "request_throughput": Band(0.25, 0.3456)})
    lines = shown(records, totals, description, (50,), bands).splitlines()

    row = next(index for index, line in enumerate(lines) if line.split()[:1] == ["TTFT"])
    assert lines[row + 1].split() == ["2,500–4,000"]
    assert any("0.30 (0.250–0.346) requests/s" in line for line in lines)
    assert "low–high: twice" in lines


def test_the_run_is_told_with_its_profile_and_definitions(
    records: Records, totals: RunTotals, description: RunDescription
) -> None:
    text = shown(records, totals, description, (50,))

    assert "some/model on 2 x Card (bfloat16, vllm-v1): by-hand" in text
    assert "3 finished, 1 aborted, 1 rejected" in text
    assert "0.30 requests/s, 2.5 output tokens/s" in text
    assert "120 of 16 tokens; at most 30 (25.0%) in use" in text
    assert "25.0% of 1,000 prompt tokens found" in text
    assert "compute 25.0%, bandwidth 40.0%, busy 80.0% of the time" in text
    assert "profile Card, uncalibrated: ±35%" in text
    assert "TPOT = (last - first token) / (tokens - 1)" in text
    assert "ITL = time between consecutive tokens" in text


def test_a_calibrated_profile_is_not_called_uncalibrated(
    records: Records, totals: RunTotals, description: RunDescription
) -> None:
    text = shown(records, totals, replace(description, calibrated=True, uncertainty="±4% on held-out points"), (50,))
    assert "profile Card, calibrated: ±4% on held-out points" in text


def test_what_never_came_is_a_dash(records: Records, totals: RunTotals, description: RunDescription) -> None:
    silent = replace(records, gaps=TokenGaps(np.array([]), np.array([], dtype=np.int64)))
    lines = [line.split() for line in shown(silent, totals, description, (50, 99)).splitlines()]
    assert ["ITL", "0", "-", "-", "-"] in lines
