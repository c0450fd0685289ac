"""Result files of load clients: what was sent, by whom, and what was measured."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simserve.calibration.measured_run import read_measured_run
from simserve.errors import WorkloadError

RESULT: dict[str, Any] = {
    "backend": "vllm", "model_id": "Qwen/Qwen3-8B", "num_prompts": 4, "request_rate": 2.0, "burstiness": 1.0,
    "max_concurrency": None, "duration": 2.5, "completed": 3, "failed": 1, "total_input_tokens": 600,
    "total_output_tokens": 60, "request_throughput": 1.2, "output_throughput": 24.0,
    "mean_ttft_ms": 40.0, "median_ttft_ms": 38.0, "p50_ttft_ms": 38.0, "std_ttft_ms": 3.0, "p99.9_ttft_ms": 50.0,
}  # fmt: skip
DETAILS: dict[str, Any] = {
    "input_lens": [100, 200, 7, 300], "output_lens": [11, 21, 0, 1], "ttfts": [0.04, 0.03, 0.0, 0.05],
    "itls": [[0.01] * 10, [0.02] * 20, [], []], "errors": ["", "", "Bad Gateway", ""],
    "start_times": [1000.5, 1000.0, 1000.6, 1002.0],
}  # fmt: skip


def read(folder: Path, content: dict[str, Any], name: str = "result.json") -> Any:
    (folder / name).write_text(json.dumps(content))
    return read_measured_run(folder)


def test_lengths_and_times_of_sending_are_those_of_the_answered_requests(tmp_path: Path) -> None:
    run = read(tmp_path, RESULT | DETAILS)

    assert run.workload.arrival_s.tolist() == [0.0, 0.5, 2.0]
    assert run.workload.input_tokens.tolist() == [200, 100, 300]
    assert run.workload.output_tokens.tolist() == [21, 11, 1]
    assert run.latencies_s["TPOT"] == pytest.approx([0.01, 0.02, math.nan], nan_ok=True)
    assert run.latencies_s["E2E"] == pytest.approx([0.14, 0.43, 0.05])


def test_without_them_means_and_the_rate_have_to_do(tmp_path: Path) -> None:
    run = read(tmp_path, RESULT | {"completed": 3000, "total_input_tokens": 600_000, "total_output_tokens": 60_000})

    assert set(run.workload.input_tokens.tolist()) == {200}
    assert np.diff(run.workload.arrival_s).mean() == pytest.approx(0.5, rel=0.1)
    assert run.latencies_s == {}


def test_burstiness_and_ramps_are_those_of_the_client(tmp_path: Path) -> None:
    even = read(tmp_path, RESULT | {"burstiness": math.inf})
    assert even.workload.arrival_s.tolist() == [0.5, 1.0, 1.5]

    ramp = {"ramp_up_strategy": "linear", "ramp_up_start_rps": 1, "ramp_up_end_rps": 4, "burstiness": math.inf}
    assert read(tmp_path, RESULT | ramp).workload.arrival_s == pytest.approx([1.0, 1.4, 1.65])


def test_each_figure_comes_once_and_deviations_are_none(tmp_path: Path) -> None:
    figures = [(figure.metric, figure.statistic) for figure in read(tmp_path, RESULT).figures]

    assert sorted(figures) == sorted(set(figures))
    assert ("TTFT", "p99.9") in figures
    assert {metric for metric, _ in figures} == {"TTFT", "duration", "requests/s", "output tokens/s"}


def test_settings_lie_beside_it_or_are_in_it(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"max_num_seqs": 32}')
    run = read(tmp_path, RESULT | {"tensor_parallel_size": "2", "max_num_seqs": "64"})

    assert run.settings == {"model": "Qwen/Qwen3-8B", "tensor_parallel_size": 2, "max_num_seqs": 32}


def test_a_line_of_sglangs_bench_serving(tmp_path: Path) -> None:
    content = {
        "backend": "sglang", "request_rate": math.inf, "max_concurrency": 8, "completed": 20, "duration": 9.0,
        "total_input_tokens": 20_480, "total_output_tokens": 2560, "mean_e2e_latency_ms": 900.0, "p99_itl_ms": 20.0,
    }  # fmt: skip
    run = read(tmp_path, content, "results.jsonl")

    assert (len(run.workload), run.users, run.settings["engine_preset"]) == (20, 8, "sglang-0.5")
    assert {(figure.metric, figure.statistic) for figure in run.figures} == {
        ("E2E", "mean"), ("ITL", "p99"), ("duration", "total"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "cannot be read as JSON"),
        ("[1, 2]", "is not one JSON object"),
        ('{"completed": 3}', "lacks total_input_tokens and total_output_tokens"),
        (json.dumps(RESULT | {"completed": 0}), "no request was completed"),
        (json.dumps(RESULT | {"request_rate": "trace"}), "request_rate is 'trace'"),
        (json.dumps(RESULT | DETAILS | {"completed": 4}), "4 requests were completed, but there are lengths of 3"),
        (json.dumps(RESULT) + "\n" + json.dumps(RESULT), "holds 2 results, a line each"),
    ],
)
def test_a_result_that_cannot_be_used_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(text)
    with pytest.raises(WorkloadError, match=sentence) as caught:
        read_measured_run(path)
    assert "\n" not in str(caught.value)
