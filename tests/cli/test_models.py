"""``simserve models``: which there are, how large they are, and what they compute."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from simserve.cli.main import main
from simserve.models import list_models, load_model


def test_every_shipped_model_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list", "--json"]) == 0
    assert [model["name"] for model in json.loads(capsys.readouterr().out)] == list_models()

    assert main(["models", "list"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in list_models())


def test_the_sizes_of_llama_3_8b(capsys: pytest.CaptureFixture[str]) -> None:
    """8,030,261,248 parameters on the hub; 32 layers of 8 KV heads of 128 keep 128 KiB per token in bfloat16."""
    assert main(["models", "show", "llama-3.1-8b", "--json"]) == 0
    model = json.loads(capsys.readouterr().out)

    assert model["parameters"] == model["active_parameters"] == 8_030_261_248
    assert model["weight_bytes"]["bfloat16"] == 2 * model["weight_bytes"]["int8"] == 2 * 8_030_261_248
    assert model["kv_bytes_per_token"]["bfloat16"] == 128 * 1024
    assert [gemm["name"] for gemm in model["gemms"]] == ["qkv", "attn_out", "gate_up", "down", "lm_head"]


def test_the_experts_of_a_mixture_are_in_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "show", "Qwen/Qwen3-30B-A3B"]) == 0
    shown = capsys.readouterr().out
    assert "expert_gate_up" in shown
    assert "30,532,122,624" in shown


def test_a_model_published_in_four_bits_is_taken_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = load_model("llama-3.1-8b").path
    assert folder is not None
    config = json.loads((folder / "config.json").read_text())
    quantization = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}
    (tmp_path / "config.json").write_text(json.dumps(config | {"quantization_config": quantization}))

    assert main(["models", "show", str(tmp_path)]) == 0
    assert "bfloat16, awq: int4 weights: 5.3 GB" in capsys.readouterr().out
    run = ["simulate", "--model", str(tmp_path), "--hardware", "L4", "--synthetic", "--num-prompts", "5", "--json"]
    assert main(run) == 0
    assert json.loads(capsys.readouterr().out)["quantization"] == "awq"
    assert main([*run, "--quantization", "fp8"]) == 2
    assert "--quantization fp8 contradicts" in capsys.readouterr().err


def test_a_model_that_is_not_known_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "show", "llama-9000"]) == 2
    error = capsys.readouterr().err
    assert "llama-9000" in error
    assert error.count("\n") == 1
