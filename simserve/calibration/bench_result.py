"""Results of ``vllm bench serve``, of SGLang's ``bench_serving`` and of ``simserve bench``: one JSON object."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simserve.calibration.figures import LATENCIES, Measured
from simserve.errors import WorkloadError
from simserve.workload import RampArrivals, SteadyArrivals, Workload, synthetic_workload

Floats = npt.NDArray[np.float64]
KEYS = {"completed", "total_input_tokens", "total_output_tokens"}
TOTALS = {"duration": "duration", "request_throughput": "requests/s", "output_throughput": "output tokens/s"}
LATENCY = re.compile(r"(mean|median|p\d+(?:\.\d+)?)_(ttft|tpot|itl|e2el|e2e_latency)_ms")


def is_bench_result(file: Path) -> bool:
    """Whether ``file`` is such a result, which a settings file is not."""
    try:
        return file.stat().st_size > 0 and set(read_result(file)) >= KEYS
    except WorkloadError:
        return False


def read_result(file: Path) -> dict[str, Any]:
    """The object that ``file`` holds; raises :class:`WorkloadError` if it is not JSON, or holds several."""
    try:
        text = file.read_text(encoding="utf-8")
        try:
            found = [json.loads(text)]
        except ValueError:
            found = [json.loads(line) for line in text.splitlines() if line.strip()]
            if not found or not text.lstrip().startswith("{") or len(text.strip().splitlines()) == 1:
                raise
    except (OSError, ValueError) as error:
        raise WorkloadError(f"{file} cannot be read as JSON ({error})") from None
    if len(found) != 1:
        raise WorkloadError(f"{file} holds {len(found)} results, a line each; give a file with one")
    if not isinstance(found[0], dict):
        raise WorkloadError(f"{file} is no result of vllm bench serve: it is not one JSON object")
    return found[0]


def workload_of(content: dict[str, Any], file: Path) -> Workload:
    """What was sent: lengths one by one and times of sending if they were saved, else their means and the rate."""
    lacking = sorted(KEYS - set(content))
    if lacking:
        raise WorkloadError(f"{file} is no result of vllm bench serve: it lacks {' and '.join(lacking)}")
    count = int(content["completed"])
    if count < 1:
        raise WorkloadError(f"{file}: no request was completed, so there is nothing to compare")
    inputs, outputs = (max(int(content[f"total_{which}_tokens"]) // count, 1) for which in ("input", "output"))
    workload = synthetic_workload(count, _arrivals(content, file), inputs, outputs, seed=0)
    if not (content.get("input_lens") and content.get("output_lens")):
        return workload
    good = answered(content)
    if len(good) != count:
        raise WorkloadError(f"{file}: {count} requests were completed, but there are lengths of {len(good)} answers")
    sent, got = (np.maximum(np.array(content[name], dtype=np.int64)[good], 1) for name in ("input_lens", "output_lens"))
    arrival_s, order = workload.arrival_s, np.arange(count)
    sent_s = content.get("start_times")
    if sent_s and len(sent_s) == len(content["input_lens"]) and content.get("max_concurrency") is None:
        arrival_s = np.array(sent_s, dtype=np.float64)[good]
        order = np.argsort(arrival_s, kind="stable")
        arrival_s = arrival_s[order] - arrival_s.min()
    return Workload(workload.name, arrival_s, sent[order], got[order])


def answered(content: dict[str, Any]) -> npt.NDArray[np.intp]:
    """Places, in the lists with an entry per request, of those that were answered."""
    outputs = content["output_lens"]
    errors = content.get("errors") or [""] * len(outputs)
    return np.flatnonzero([not error and tokens > 0 for error, tokens in zip(errors, outputs, strict=True)])


def _arrivals(content: dict[str, Any], file: Path) -> SteadyArrivals | RampArrivals:
    burstiness = float(content.get("burstiness") or 1.0)
    if content.get("ramp_up_strategy"):
        ends = float(content["ramp_up_start_rps"]), float(content["ramp_up_end_rps"])
        return RampArrivals(*ends, content["ramp_up_strategy"], burstiness)
    rate = content.get("request_rate", "inf")
    try:
        return SteadyArrivals(math.inf if rate is None else float(rate), burstiness)
    except ValueError:
        raise WorkloadError(f"{file}: request_rate is {rate!r}; it must be a number or inf") from None


def figures_of(content: dict[str, Any]) -> list[Measured]:
    """Every latency and total that the result names."""
    found = []
    for key, value in content.items():
        match = LATENCY.fullmatch(key)
        if match and value is not None:
            statistic = "p50" if match[1] == "median" else match[1]
            found.append(Measured(LATENCIES[match[2]], statistic, float(value) / 1e3))
    unique = {(figure.metric, figure.statistic): figure for figure in found}  # a median may be there as p50 too
    totals = [
        Measured(metric, "total", float(content[key])) for key, metric in TOTALS.items() if content.get(key) is not None
    ]
    return [*unique.values(), *totals]


def latencies_of(content: dict[str, Any]) -> dict[str, Floats]:
    """One value per request answered, in seconds, by metric; empty if they were not saved."""
    ttfts, itls = content.get("ttfts"), content.get("itls")
    if not ttfts or not itls or not content.get("output_lens"):
        return {}
    good = answered(content)
    first = np.array(ttfts, dtype=np.float64)[good]
    rest = np.array([sum(itls[row]) for row in good])
    gaps = np.array([content["output_lens"][row] - 1 for row in good], dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        per_token = np.where(gaps > 0, rest / gaps, np.nan)
    return {"TTFT": first, "TPOT": per_token, "E2E": first + rest}
