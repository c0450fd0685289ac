"""``simserve models steps``: single steps beside published ones, never under the roofline, with a band around them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from simserve.cli.main import main

LLAMA_ON_A100 = ("models", "steps", "--model", "meta-llama/Llama-3.1-8B", "--hardware", "A100")

PUBLISHED_MS = {
    "1 decode, 1,024 tokens each": 11.9,
    "32 decodes, 1,024 tokens each": 15.6,
    "128 decodes, 1,024 tokens each": 24.8,
    "prompt of 512 tokens": 36,
    "prompt of 1,024 tokens": 65,
    "prompt of 4,096 tokens": 259,
}
"""Of the same model in bfloat16 on one A100 SXM, measured by others."""


def steps(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, dict[str, Any]]:
    assert main([*LLAMA_ON_A100, "--json", *options]) == 0
    return {step["name"]: step for step in json.loads(capsys.readouterr().out)["steps"]}


def test_steps_take_what_others_measured(capsys: pytest.CaptureFixture[str]) -> None:
    found = steps(capsys, "--prompts", "512,1024,4096", "--max-num-batched-tokens", "8192")

    assert found.keys() == PUBLISHED_MS.keys()
    for name, published_ms in PUBLISHED_MS.items():
        assert found[name]["seconds"] * 1e3 == pytest.approx(published_ms, rel=0.1)


def test_a_step_lies_in_its_band_and_above_the_roofline(capsys: pytest.CaptureFixture[str]) -> None:
    for step in steps(capsys, "--prompts", "1,100,100+5000").values():
        assert step["at_least_s"] <= step["low_s"] < step["seconds"] < step["high_s"]


def test_the_table_says_what_it_rests_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*LLAMA_ON_A100, "--prompts", "64+1000"]) == 0
    shown = capsys.readouterr().out
    assert "prompt of 64 tokens behind 1,000" in shown
    assert "from measured" in shown


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--decodes", "8"), "--decodes 8 is not understood"),
        (("--prompts", "many"), "--prompts many is not understood"),
        (("--decodes", "5000x10"), "a step has 1 to 256 decodes and not 5000"),
        (("--prompts", "4096"), "a step has 1 to 2048 tokens of a prompt and not 4096: see --max-num-batched-tokens"),
    ],
)
def test_a_step_that_cannot_be_is_one_sentence(
    capsys: pytest.CaptureFixture[str], options: tuple[str, ...], sentence: str
) -> None:
    assert main([*LLAMA_ON_A100, *options]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
