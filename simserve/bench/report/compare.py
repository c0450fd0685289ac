"""Two results side by side, ours or those of ``vllm bench serve``: what changed, and whether they can be compared."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simserve.bench.report.words import Language, word
from simserve.errors import WorkloadError

SETUP = ("backend", "model_id", "request_rate", "burstiness", "max_concurrency", "num_prompts", "ramp_up_strategy")
"""What must be alike for a comparison to mean something."""

RATES = (
    "request_throughput", "request_goodput", "output_throughput", "total_token_throughput", "input_sequence_throughput",
)  # fmt: skip
COUNTS = ("completed", "failed", "duration", "total_input_tokens", "total_output_tokens", "max_concurrent_requests")
LATENCY = re.compile(r"(mean|median|std|p[\d.]+)_(\w+)_ms")
SAME_TOKENS = 0.02


@dataclass(frozen=True)
class Change:
    """One figure of both results; ``ratio`` is the second over the first, None where that has no meaning."""

    name: str
    before: float
    after: float

    @property
    def ratio(self) -> float | None:
        return self.after / self.before if self.before else None


@dataclass(frozen=True)
class ResultsComparison:
    """Figures that both results have, and what speaks against comparing them."""

    changes: list[Change]
    doubts: list[str]


def read_result(path: Path) -> dict[str, Any]:
    """A result file; of one with several appended results, the last. Raises :class:`WorkloadError` for what is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WorkloadError(f"{path} cannot be read ({error})") from None
    try:
        result = json.loads(text)
    except ValueError:
        lines = [line for line in text.splitlines() if line.strip()]
        try:
            result = json.loads(lines[-1])
        except (ValueError, IndexError):
            raise WorkloadError(f"{path} is no JSON; give a result of simserve bench or vllm bench serve") from None
    if not isinstance(result, dict) or not {"duration", "completed"} <= set(result):
        raise WorkloadError(
            f"{path} is no result of simserve bench or vllm bench serve: it has no duration or completed"
        )
    return result


def compare_results(before: Mapping[str, Any], after: Mapping[str, Any]) -> ResultsComparison:
    """What both results have, in the order of the first."""
    names = [name for name in (*COUNTS, *RATES) if name in before]
    names += [name for name in before if LATENCY.fullmatch(name)]
    changes = [
        Change(name, float(before[name]), float(after[name]))
        for name in names
        if isinstance(before.get(name), int | float) and isinstance(after.get(name), int | float)
    ]
    return ResultsComparison(changes, _doubts(before, after))


def _doubts(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    doubts = [
        f"{name} differs: {before.get(name)} and {after.get(name)}"
        for name in SETUP
        if before.get(name) != after.get(name)
    ]
    for name in ("total_input_tokens", "total_output_tokens"):
        first, second = (one.get(name, 0) / max(one["completed"], 1) for one in (before, after))
        if abs(second - first) > SAME_TOKENS * max(first, 1):
            doubts.append(f"{name} per request differ: {first:.1f} and {second:.1f}")
    for which, result in (("first", before), ("second", after)):
        own = result.get("simserve")
        if isinstance(own, dict) and own.get("verdict") not in (None, "VALID"):
            doubts.append(f"the {which} run is {own['verdict']}: {own.get('reason')}")
        if isinstance(own, dict) and own.get("tokens_estimated"):
            doubts.append(f"the {which} run's token counts are estimated")
    return doubts


def label(name: str, language: Language) -> str:
    """A figure's key as a person would say it."""
    match = LATENCY.fullmatch(name)
    if match is None:
        return name.replace("_", " ")
    statistic = word(match[1], language) if match[1] in ("mean", "median", "std") else match[1]
    return f"{statistic} {match[2].upper()}, {word('time_unit', language)}"
