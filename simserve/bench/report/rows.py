"""Requests one by one: as CSV and as JSON Lines."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

from simserve.bench.measure.outcome import Outcome
from simserve.bench.run import BenchRun

COLUMNS = (
    "index", "request_id", "status", "error", "due_s", "sent_s", "end_s", "lag_ms", "client_queue_ms", "ttft_ms",
    "tpot_ms", "e2el_ms", "e2el_scheduled_ms", "input_tokens", "output_tokens", "cached_tokens", "chunks", "reads",
    "server_queue_ms", "server_ttft_ms",
)  # fmt: skip
"""Times are seconds since the run's start; empty or null is what never was."""


def rows_of(run: BenchRun) -> list[dict[str, Any]]:
    """One row per request in the order they were due."""
    return [_row(run, one) for one in run.outcomes]


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows with a header."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def write_jsonl(path: Path, run: BenchRun, rows: list[dict[str, Any]]) -> None:
    """The same rows as JSON, each with when its chunks came and, where kept, its text."""
    with path.open("w", encoding="utf-8") as file:
        for row, one in zip(rows, run.outcomes, strict=True):
            more: dict[str, Any] = {"chunk_times_s": [round(time_s - run.start_s, 6) for time_s in one.token_times_s]}
            if one.text:
                more["text"] = one.text
            file.write(json.dumps(row | more, ensure_ascii=False) + "\n")


def _row(run: BenchRun, one: Outcome) -> dict[str, Any]:
    scheduled_s = one.ready_s if run.plan.shape.is_closed_loop else one.due_s
    tokens = one.input_tokens
    return {
        "index": one.index,
        "request_id": one.request_id,
        "status": "ok" if one.ok else "failed",
        "error": str(one.failure or ""),
        "due_s": _rounded(one.due_s - run.start_s),
        "sent_s": _rounded(one.sent_s - run.start_s),
        "end_s": _rounded(one.end_s - run.start_s),
        "lag_ms": _ms(one.sent_s - one.ready_s),
        "client_queue_ms": _ms(one.sent_s - one.due_s),
        "ttft_ms": _ms(one.ttft_s),
        "tpot_ms": _ms(one.tpot_s),
        "e2el_ms": _ms(one.e2el_s) if one.ok else None,
        "e2el_scheduled_ms": _ms(one.end_s - scheduled_s) if one.ok else None,
        "input_tokens": run.plan.sample_of(one.index).input_tokens if tokens is None else tokens,
        "output_tokens": one.output_tokens,
        "cached_tokens": one.cached_tokens,
        "chunks": len(one.token_times_s),
        "reads": one.reads,
        "server_queue_ms": _ms(one.server_queue_s),
        "server_ttft_ms": _ms(one.server_ttft_s),
    }


def _ms(seconds: float) -> float | None:
    return None if math.isnan(seconds) else round(seconds * 1e3, 4)


def _rounded(seconds: float) -> float | None:
    return None if math.isnan(seconds) else round(seconds, 6)
