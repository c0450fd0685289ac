"""A run as tables for a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from simserve.metrics.bands import Bands
from simserve.metrics.distribution import Distribution
from simserve.metrics.latency import DEFINITIONS
from simserve.metrics.records import RunDescription
from simserve.metrics.result import latency_key, percentile_name
from simserve.metrics.summary import Summary, utilisation


def report(summary: Summary, description: RunDescription, bands: Bands) -> RenderableType:
    """What was run, its latencies, its throughput and use of the hardware, and what the figures mean."""
    return Group(
        _heading(description),
        latency_table(summary, bands),
        run_table(summary, description, bands),
        _footnotes(description, bands),
    )


def latency_table(summary: Summary, bands: Bands) -> Table:
    """TTFT, TPOT, ITL and E2E in milliseconds: how many values, their mean and percentiles; bands below each."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("latency, ms", no_wrap=True)
    statistics = ("mean", *map(percentile_name, summary.percentiles))
    for column in ("values", *statistics):
        table.add_column(column, justify="right", overflow="fold")
    metrics = {"TTFT": summary.ttft, "TPOT": summary.tpot, "ITL": summary.itl, "E2E": summary.e2e}
    for name, values in metrics.items():
        table.add_row(name, *_latency_cells(values))
        ranges = [band_text(bands, latency_key(statistic, name)) for statistic in statistics]
        if any(ranges):
            table.add_row("", "", *ranges, style="dim")
    return table


def run_table(summary: Summary, description: RunDescription, bands: Bands) -> Table:
    """Counts, throughput, KV blocks, preemptions and utilisation, one line each."""
    table = Table.grid(padding=(0, 2))
    for label, value in (*load_lines(summary, bands), *_hardware_lines(summary, description)):
        table.add_row(Text(label), Text(value))
    return table


def band_text(bands: Bands, key: str) -> str:
    """``158.2–190.1`` for the band of ``key``; empty where there is none."""
    band = bands.by_key.get(key)
    return f"{_four_digits(band.low)}–{_four_digits(band.high)}" if band else ""


def _four_digits(value: float) -> str:
    whole = len(str(int(abs(value))))
    return f"{value:,.{max(0, 4 - whole)}f}"


def _latency_cells(values: Distribution) -> list[str]:
    return [f"{values.count:,}", *(_milliseconds(seconds) for seconds in (values.mean, *values.at))]


def _milliseconds(seconds: float) -> str:
    return "-" if math.isnan(seconds) else f"{seconds * 1000:,.2f}"


def feature_table(figures: Mapping[str, int | float]) -> Table:
    """What features that not every engine has did, by the keys of the result."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("features", no_wrap=True)
    table.add_column("", justify="right")
    for name, value in figures.items():
        table.add_row(name.replace("_", " "), f"{value:,}" if isinstance(value, int) else f"{value:,.3f}")
    return table


def load_lines(summary: Summary, bands: Bands) -> list[tuple[str, str]]:
    """Requests, tokens, duration and throughput as (label, value)."""

    def ranged(value: str, key: str) -> str:
        text = band_text(bands, key)
        return f"{value} ({text})" if text else value

    totals = summary.totals
    requests = ranged(f"{summary.request_throughput:,.2f}", "request_throughput")
    output = ranged(f"{summary.output_throughput:,.1f}", "output_throughput")
    both = ranged(f"{summary.total_token_throughput:,.1f}", "total_token_throughput")
    return [
        ("requests", _requests(summary)),
        ("tokens", f"{summary.total_input_tokens:,} in, {summary.total_output_tokens:,} out"),
        ("duration", f"{ranged(f'{totals.duration_s:,.2f}', 'duration')} s in {totals.steps:,} steps"),
        ("throughput", f"{requests} requests/s, {output} output tokens/s"),
        ("", f"{both} tokens/s in and out"),
    ]


def _requests(summary: Summary) -> str:
    others = {
        "aborted": summary.aborted,
        "rejected (they cannot fit)": summary.rejected,
        "throttled (refused with 429)": summary.throttled,
        "failed with their replica": summary.lost,
    }
    return ", ".join(
        [f"{summary.completed:,} finished", *(f"{count:,} {what}" for what, count in others.items() if count)]
    )


def _hardware_lines(summary: Summary, description: RunDescription) -> list[tuple[str, str]]:
    totals, used = summary.totals, utilisation(summary.totals, description)
    return [
        (
            "KV blocks",
            f"{description.kv_blocks:,} of {description.block_size} tokens;"
            f" at most {totals.peak_kv_blocks_used:,} ({used.kv:.1%}) in use",
        ),
        ("preemptions", f"{totals.preemptions:,}"),
        ("prefix cache", f"{summary.prefix_cache_hit_rate:.1%} of {totals.prompt_tokens:,} prompt tokens found"),
        ("running", f"{totals.mean_running_requests:,.1f} requests on average"),
        (
            "utilisation",
            f"compute {used.compute:.1%}, bandwidth {used.bandwidth:.1%}, busy {used.busy:.1%} of the time",
        ),
        *_front_end_lines(description, used.front_end),
    ]


def _front_end_lines(description: RunDescription, busy: float) -> list[tuple[str, str]]:
    count = description.api_server_count
    if not count:
        return []
    processes = "1 process" if count == 1 else f"{count} processes"
    return [("front end", f"{description.front_end}, {processes}, busy {busy:.1%} of the time")]


def _heading(description: RunDescription) -> Text:
    return Text.assemble(
        (description.model, "bold"),
        " on ",
        (description.hardware, "bold"),
        f" ({description.formats}, {description.policy}): {description.workload}",
    )


def _footnotes(description: RunDescription, bands: Bands) -> Text:
    trust = ("calibrated", "green") if description.calibrated else ("uncalibrated", "bold yellow")
    return Text.assemble(
        f"profile {description.hardware_profile}, ",
        trust,
        f": {description.uncertainty}\nlow–high: {bands.basis}",
        *((f"\n{name} = {definition}", "dim") for name, definition in DEFINITIONS.items()),
    )
