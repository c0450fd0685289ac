"""The engine's options on the command line: names, what they become, and what is left to preset and policy."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from simserve.cli.main import main
from simserve.cli.options import add_engine_arguments, add_model_hardware_arguments, engine_options
from simserve.config import EngineOptions

EXAMPLE = Path(__file__).parents[2] / "examples" / "my_policy.py"
RUN = ["simulate", "--model", "facebook/opt-125m", "--hardware", "A100", "--synthetic", "--num-prompts", "20", "--json"]


def options_of(*argv: str) -> EngineOptions:
    parser = argparse.ArgumentParser()
    add_model_hardware_arguments(parser)
    add_engine_arguments(parser)
    return engine_options(parser.parse_args(argv))


def test_options_of_policies() -> None:
    assert options_of(
        *("--policy", "vllm-v1", "--scheduling-policy", "priority", "--watermark", "0.05"),
        *("--no-scheduler-reserve-full-isl", "--async-scheduling", "--long-prefill-token-threshold", "64"),
    ) == EngineOptions(
        policy="vllm-v1",
        scheduling_policy="priority",
        watermark=0.05,
        reserve_full_prompt=False,
        async_scheduling=True,
        long_prefill_token_threshold=64,
    )
    assert options_of(
        *("--policy", "sglang", "--chunked-prefill-size", "4k", "--schedule-policy", "lpm"),
        *("--schedule-conservativeness", "0.5"),
    ) == EngineOptions(policy="sglang", chunked_prefill_size=4000, schedule_policy="lpm", schedule_conservativeness=0.5)


def test_number_formats_by_vllms_names() -> None:
    assert options_of("-q", "awq_marlin", "--kv-cache-dtype", "fp8_e5m2") == EngineOptions(
        quantization="awq_marlin", kv_cache_dtype="fp8_e5m2"
    )
    assert options_of("--quantization", "fp8", "--kv-cache-dtype", "auto") == EngineOptions(quantization="fp8")


def test_an_answer_says_in_which_formats(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*RUN, "--quantization", "gptq", "--kv-cache-dtype", "fp8"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["dtype"], result["quantization"], result["kv_cache_dtype"]) == ("float16", "gptq", "fp8")
    assert result["uncertainty"].endswith("carried over to int4 weights and fp8 KV cache")
    assert main([*RUN[:-1], "--quantization", "gptq"]) == 0
    assert "(float16, gptq: int4 weights, vllm-v1)" in capsys.readouterr().out


def test_what_is_not_said_is_left_to_the_preset() -> None:
    assert options_of("--engine-preset", "vllm-0.11") == EngineOptions(engine_preset="vllm-0.11")


def test_a_policy_of_ones_own_runs_from_its_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*RUN, "--policy", f"{EXAMPLE}:MyPolicy"]) == 0
    assert "my_policy.py:MyPolicy" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--engine-preset", "vllm-7"], "--engine-preset vllm-7 is not known; choose one of vllm-0.22"),
        (["--policy", "orca", "--watermark", "0.1"], "policy orca cannot have --watermark 0.1"),
        (["--scheduling-policy", "random"], "--scheduling-policy random is not known; choose one of fcfs, priority"),
        (["--front-end", "apache"], "--front-end apache is not known; choose one of none, vllm-v1, sglang"),
        (["--api-server-count", "2"], "--api-server-count needs a front end whose processes it counts"),
        (["--watermark", "2"], "--watermark is a fraction of the KV blocks"),
        (["--quantization", "nf4"], "--quantization nf4 is not known; choose one of fp8, int8, awq, awq_marlin, gptq"),
        (
            ["--kv-cache-dtype", "int4"],
            "--kv-cache-dtype int4 is not known; choose one of auto, bfloat16",
        ),
        (["--hardware", "TPUv5e", "-q", "fp8"], "TPUv5e has no peak for fp8: choose one of bfloat16, int8"),
    ],
)
def test_what_cannot_be_honoured_is_told_in_a_sentence(
    argv: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*RUN, *argv]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert "Traceback" not in error
