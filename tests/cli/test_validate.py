"""``simserve validate serving``: what a run says, what the simulation says, and how far they are apart."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from simserve.cli.main import main
from simserve.config import EngineOptions
from simserve.hardware import load_hardware
from simserve.metrics.latency import e2e_s, tpot_s, ttft_s
from simserve.models import load_model
from simserve.simulation import simulate
from simserve.workload import synthetic_workload

MODEL = "meta-llama/Llama-3.1-8B"
ARGUMENTS = ("--model", MODEL, "--hardware", "A100")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose server was the simulation itself, so that predictions ought to be perfect."""
    workload = synthetic_workload(50, 5.0, 300, 40, seed=3)
    records = simulate(workload, load_model(MODEL), load_hardware("A100"), EngineOptions()).records
    columns = {
        "arrival_s": records.arrival_s,
        "input_tokens": records.input_tokens,
        "output_tokens": records.output_tokens,
        "ttft_ms": ttft_s(records) * 1e3,
        "tpot_ms": tpot_s(records) * 1e3,
        "e2e_ms": e2e_s(records) * 1e3,
    }
    with (tmp_path / "requests.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return tmp_path


def test_a_run_of_the_simulation_is_predicted_to_the_last_digit(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "serving", str(run), *ARGUMENTS, "--json", "--max-error", "0.001"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert {figure["metric"] for figure in answer["figures"]} == {"TTFT", "TPOT", "E2E", "duration", "output tokens/s"}
    assert max(abs(figure["error"]) for figure in answer["figures"]) < 1e-5
    assert all(figure["low"] <= figure["predicted"] <= figure["high"] for figure in answer["figures"])
    assert all(figure["in_band"] for figure in answer["figures"])
    assert answer["hardware_profile"] == "A100-SXM4-80GB"


def test_a_prediction_that_misses_fails_the_command(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same run held against slower hardware."""
    arguments = ("--model", MODEL, "--hardware", "RTX4090", "--max-error", "10")
    assert main(["validate", "serving", str(run), *arguments]) == 1
    shown = capsys.readouterr().out
    assert "RTX4090" in shown
    assert "of 17 measured figures lie between low and high" in shown


def test_settings_of_the_run_are_taken_unless_told_otherwise(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    meta = {"model": MODEL, "engine_kwargs": {}, "kv_cache": {"num_gpu_blocks": 777}}
    (run / "meta.json").write_text(json.dumps(meta))

    def blocks(*options: str) -> int:
        assert main(["validate", "serving", str(run), "--hardware", "A100", "--json", *options]) == 0
        return int(json.loads(capsys.readouterr().out)["kv_blocks"])

    assert blocks() == 777
    assert blocks("--num-gpu-blocks", "900") == 900
    assert blocks("--own-blocks") > 10_000


def test_a_run_that_was_repeated_is_compared_with_the_mean_of_its_rounds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The server was the simulation itself: one round with an empty prefix cache, two that find every prompt."""
    table = tmp_path / "run.csv"
    header = "input_len,output_len,max_concurrency,num_prompts,req_s,ttft_p50_ms\n"

    def predicted(measured: str, *options: str) -> dict[str, float]:
        table.write_text(header + measured)
        assert main(["validate", "serving", str(table), *ARGUMENTS, "--json", *options]) == 0
        return {one["metric"]: one["predicted"] for one in json.loads(capsys.readouterr().out)["figures"]}

    once, thrice = predicted("2000,50,4,20,1,1"), predicted("2000,50,4,20,1,1", "--repeats", "3")
    assert thrice["requests/s"] > 1.2 * once["requests/s"]
    assert thrice["TTFT"] < 0.7 * once["TTFT"]

    exact = f"2000,50,4,20,{thrice['requests/s']},{thrice['TTFT'] * 1e3}"
    assert predicted(exact, "--repeats", "3", "--max-error", "0.001") == thrice


def test_the_run_may_name_its_device_and_an_engine_of_which_the_user_says_another(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    meta = {
        "model": MODEL,
        "vllm_version": "0.19.0",
        "async_scheduling": True,
        "hardware": {"device_name": "NVIDIA L4"},
    }
    (run / "meta.json").write_text(json.dumps(meta))

    def described(*options: str) -> tuple[str, str]:
        assert main(["validate", "serving", str(run), "--json", *options]) == 0
        answer = json.loads(capsys.readouterr().out)
        return answer["hardware_profile"], answer["policy"]

    assert described() == ("L4", "vllm-v1")
    assert described("--policy", "vllm-v0", "--hardware", "A100") == ("A100-SXM4-80GB", "vllm-v0")


def test_both_distributions_are_drawn(run: Path, tmp_path: Path) -> None:
    picture = tmp_path / "distributions.svg"
    assert main(["validate", "serving", str(run), *ARGUMENTS, "--plot", str(picture)]) == 0
    assert "<svg" in picture.read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["validate", "serving", "nowhere", *ARGUMENTS], "nowhere does not exist"),
        (["validate", "serving", "{run}", "--hardware", "A100"], "which model?"),
        (["validate", "serving", "{run}", *ARGUMENTS, "--repeats", "0"], "--repeats must be at least 1"),
        (["validate", "serving", "{run}", *ARGUMENTS, "--plot", "x.nonsense"], "cannot be drawn"),
    ],
)
def test_bad_input_is_one_sentence(
    run: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    assert main([argument.format(run=run) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
