"""Runs of real servers, in the forms in which others write them down."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from simserve.calibration.measured_run import Measured, read_measured_run
from simserve.errors import WorkloadError

REQUESTS = """request_id,arrival_s,input_tokens,output_tokens,ttft_ms,tpot_ms,e2e_ms
0,5.0,100,11,50,20,250
1,6.0,200,21,150,30,750
2,6.5,300,1,80,,80
"""

SERVING = Path(__file__).resolve().parents[2].parent / "shared" / "measurements" / "serving"


def figures(path: Path) -> dict[tuple[str, str], float]:
    return {(figure.metric, figure.statistic): figure.value for figure in read_measured_run(path).figures}


def test_one_row_per_request(tmp_path: Path) -> None:
    (tmp_path / "run.csv").write_text(REQUESTS)
    run = read_measured_run(tmp_path)
    assert run.workload.arrival_s.tolist() == [0.0, 1.0, 1.5]
    assert run.users is None
    assert Measured("TTFT", "p50", pytest.approx(0.080)) in run.figures
    assert Measured("TPOT", "mean", pytest.approx(0.025)) in run.figures  # a single token has none
    assert Measured("duration", "total", pytest.approx(1.75)) in run.figures
    assert Measured("output tokens/s", "total", pytest.approx(33 / 1.75)) in run.figures


def test_meta_beside_it_gives_the_engine(tmp_path: Path) -> None:
    (tmp_path / "run.csv").write_text(REQUESTS)
    meta = {
        "model": "meta-llama/Llama-3.1-8B",
        "engine_kwargs": {"max_num_seqs": 256, "max_model_len": None},
        "kv_cache": {"num_gpu_blocks": 2588, "block_size": 16, "enable_prefix_caching": True},
    }
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    assert read_measured_run(tmp_path).settings == {
        "model": "meta-llama/Llama-3.1-8B",
        "max_num_seqs": 256,
        "num_gpu_blocks": 2588,
        "block_size": 16,
        "enable_prefix_caching": True,
    }


def test_one_row_of_totals_is_users_in_a_closed_loop(tmp_path: Path) -> None:
    header = "input_len,output_len,max_concurrency,num_prompts,req_s,ttft_p50_ms,tpot_p99_ms"
    (tmp_path / "run.csv").write_text(f"{header}\n2048,128,16,100,7.08,351.41,16.8\n")
    run = read_measured_run(tmp_path / "run.csv")
    assert (len(run.workload), run.users) == (100, 16)
    assert set(run.workload.input_tokens.tolist()) == {2048}
    assert figures(tmp_path) == {
        ("TTFT", "p50"): pytest.approx(0.35141),
        ("TPOT", "p99"): pytest.approx(0.0168),
        ("requests/s", "total"): 7.08,
    }


def test_a_vllm_bench_serve_result(tmp_path: Path) -> None:
    content = {
        "completed": 2, "total_input_tokens": 300, "total_output_tokens": 30, "request_rate": "inf",
        "max_concurrency": None, "duration": 2.5, "mean_ttft_ms": 40.0, "median_ttft_ms": 38.0, "p99_e2el_ms": 900.0,
        "input_lens": [100, 200], "output_lens": [10, 20],
    }  # fmt: skip
    path = tmp_path / "result.json"
    path.write_text(json.dumps(content))
    run = read_measured_run(path)
    assert run.workload.input_tokens.tolist() == [100, 200]
    assert figures(path) == {
        ("TTFT", "mean"): pytest.approx(0.040),
        ("TTFT", "p50"): pytest.approx(0.038),
        ("E2E", "p99"): pytest.approx(0.9),
        ("duration", "total"): 2.5,
    }


def test_token_rates_beside_a_workload(tmp_path: Path) -> None:
    """Ten tokens a second until 1.5 s, then half an interval's worth: the last token came at 1.75 s."""
    (tmp_path / "workload.csv").write_text("arrival_s,input_tokens,output_tokens\n0.25,10,17\n")
    rates = "t_start_s,vllm_gen_tok_s\n0,10\n0.5,10\n1.0,10\n1.5,5\n2.0,0\n"
    (tmp_path / "rates.csv").write_text(rates)
    assert figures(tmp_path / "rates.csv")["duration", "total"] == pytest.approx(1.75 - 0.25)


def test_a_table_of_several_runs_wants_a_line(tmp_path: Path) -> None:
    header = "tp,input_len,output_len,max_concurrency,num_prompts,ttft_p50_ms"
    path = tmp_path / "runs.csv"
    path.write_text(f"{header}\n1,2048,128,16,100,351\n2,512,256,8,50,116\n")
    with pytest.raises(WorkloadError, match=r"holds 2 runs, in lines 2 to 3: choose one with --line"):
        read_measured_run(path)
    with pytest.raises(WorkloadError, match="has no run in line 4"):
        read_measured_run(path, 4)

    run = read_measured_run(path, 3)
    assert (len(run.workload), run.users, run.settings) == (50, 8, {"tensor_parallel_size": 2})


def test_requests_without_an_answer_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "run.csv").write_text(REQUESTS + "3,5.5,100,,,,\n4,6.1,100,0,,,\n")
    run = read_measured_run(tmp_path)
    assert run.workload.output_tokens.tolist() == [11, 21, 1]
    assert run.workload.dropped_requests == 2


def test_the_mean_gap_of_a_request_is_its_tpot(tmp_path: Path) -> None:
    (tmp_path / "run.csv").write_text(REQUESTS.replace("tpot_ms", "itl_ms"))
    assert figures(tmp_path)["TPOT", "mean"] == pytest.approx(0.025)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("num_prompts,input_len,output_len,ttft_p50_ms\n5,10,x,1\n", "line 2: output_len is 'x'; it must be a number"),
        ("num_prompts,input_len,output_len,ttft_p50_ms\n0,10,5,1\n", "line 2: num_prompts is 0; it must be a whole"),
        ("num_prompts,input_len,ttft_p50_ms\n5,10,1\n", "lacks a column total_output_tokens"),
        ("arrival_s,input_tokens,output_tokens,ttft_ms\n0,1,0,1\n", "no request has output_tokens"),
        ("a,b\n1,2\n", "are no measured run"),
        ("arrival_s,input_tokens,output_tokens,ttft_ms\n0,1,2,x\n", "line 2: ttft_ms is 'x'"),
        ("arrival_s,input_tokens,output_tokens,ttft_ms\n", "has no rows"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, content: str, sentence: str) -> None:
    path = tmp_path / "run.csv"
    path.write_text(content)
    with pytest.raises(WorkloadError, match=sentence):
        read_measured_run(path)


def test_a_folder_with_several_runs_wants_a_file(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text(REQUESTS)
    with pytest.raises(WorkloadError, match=r"several runs \(a.csv, b.csv\)"):
        read_measured_run(tmp_path)


@pytest.mark.skipif(not SERVING.exists(), reason="../shared/measurements is not here")
@pytest.mark.parametrize(
    ("run", "requests"),
    [
        ("RTX4090_Llama-3.1-8B_vllm0.19", 300),
        ("A100_OPT-13B_vllm-v0/vllm-100-1_requests.csv", 100),
        ("A100PCIe_Qwen2.5-7B_vllm0.19", 100),
        ("RTX3090_GPT3-7B_vllm2024", 100),
        ("Ascend910B_Qwen3-8B", 500),
    ],
)
def test_the_runs_that_others_measured_are_read(run: str, requests: int) -> None:
    measured = read_measured_run(SERVING / run)
    assert len(measured.workload) == requests
    assert measured.figures
