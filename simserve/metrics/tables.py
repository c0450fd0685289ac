"""A run as tables for a terminal."""

from __future__ import annotations

import math

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from simserve.metrics.distribution import Distribution
from simserve.metrics.latency import DEFINITIONS
from simserve.metrics.records import RunDescription
from simserve.metrics.result import percentile_name
from simserve.metrics.summary import Summary, utilisation


def report(summary: Summary, description: RunDescription) -> RenderableType:
    """What was run, its latencies, its throughput and use of the hardware, and what the figures mean."""
    return Group(
        _heading(description), latency_table(summary), run_table(summary, description), _footnotes(description)
    )


def latency_table(summary: Summary) -> Table:
    """TTFT, TPOT, ITL and E2E in milliseconds: how many values, their mean and percentiles."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("latency, ms", no_wrap=True)
    for column in ("values", "mean", *map(percentile_name, summary.percentiles)):
        table.add_column(column, justify="right", overflow="fold")
    metrics = {"TTFT": summary.ttft, "TPOT": summary.tpot, "ITL": summary.itl, "E2E": summary.e2e}
    for name, values in metrics.items():
        table.add_row(name, *_latency_cells(values))
    return table


def run_table(summary: Summary, description: RunDescription) -> Table:
    """Counts, throughput, KV blocks, preemptions and utilisation, one line each."""
    table = Table.grid(padding=(0, 2))
    for label, value in (*_load_lines(summary), *_hardware_lines(summary, description)):
        table.add_row(Text(label), Text(value))
    return table


def _latency_cells(values: Distribution) -> list[str]:
    return [f"{values.count:,}", *(_milliseconds(seconds) for seconds in (values.mean, *values.at))]


def _milliseconds(seconds: float) -> str:
    return "-" if math.isnan(seconds) else f"{seconds * 1000:,.2f}"


def _load_lines(summary: Summary) -> list[tuple[str, str]]:
    totals = summary.totals
    return [
        ("requests", _requests(summary)),
        ("tokens", f"{summary.total_input_tokens:,} in, {summary.total_output_tokens:,} out"),
        ("duration", f"{totals.duration_s:,.2f} s in {totals.steps:,} steps"),
        (
            "throughput",
            f"{summary.request_throughput:,.2f} requests/s, {summary.output_throughput:,.1f} output tokens/s",
        ),
        ("", f"{summary.total_token_throughput:,.1f} tokens/s in and out"),
    ]


def _requests(summary: Summary) -> str:
    others = {"aborted": summary.aborted, "rejected (they cannot fit)": summary.rejected}
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


def _footnotes(description: RunDescription) -> Text:
    trust = ("calibrated", "green") if description.calibrated else ("uncalibrated", "bold yellow")
    return Text.assemble(
        f"profile {description.hardware_profile}, ",
        trust,
        f": {description.uncertainty}",
        *((f"\n{name} = {definition}", "dim") for name, definition in DEFINITIONS.items()),
    )
