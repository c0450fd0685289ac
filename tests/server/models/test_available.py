"""Which models a settings file makes available, and what is wrong with those it cannot."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from server.serving import FAST, serving, settings
from simserve.errors import SimServeError
from simserve.resources import data_dir
from simserve.server.models import available_models

TWO = """
engine: {time_scale: .inf, hardware: L4}
models:
  default: small
  available:
    large: {path: meta-llama/Llama-3.1-8B-Instruct, hardware: H100, max_tokens: 9000, tensor_parallel_size: 2}
    small: {path: facebook/opt-125m, aliases: [tiny, gpt-4o-mini], gpu_memory_utilization: 0.5}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a model of the user's own, one of an organisation, and one that nobody can read."""
    config = (data_dir("models") / "facebook/opt-125m/config.json").read_text()
    for name, text in (("mine", config), ("org/other", config), ("broken", "{}")):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").write_text(text)
    return tmp_path


async def cards(text: str) -> dict[str, dict[str, Any]]:
    async with serving(text) as client:
        return {card["id"]: card for card in (await client.get("/v1/models"))["data"]}


async def test_all_names_are_listed_with_what_is_behind_them() -> None:
    listed = await cards(TWO)
    assert list(listed) == ["small", "tiny", "gpt-4o-mini", "large"]
    assert listed["large"]["root"] == "meta-llama/Llama-3.1-8B-Instruct"
    assert listed["large"]["max_model_len"] == 9000
    assert listed["tiny"]["root"] == "facebook/opt-125m"
    assert listed["tiny"]["max_model_len"] == 2048


async def test_each_model_has_its_own_engine_and_answers_carry_its_name() -> None:
    async with serving(TWO) as client:
        for asked, named in (("large", "large"), ("tiny", "small"), (None, "small")):
            async with client.complete(model=asked, max_tokens=2) as response:
                assert (await response.json())["model"] == named
        small, large = (await client.get("/status"))["models"]
    assert (large["engine"]["hardware_profile"], large["engine"]["tensor_parallel_size"]) == ("H100-SXM", 2)
    assert (small["engine"]["hardware_profile"], small["engine"]["tensor_parallel_size"]) == ("L4", 1)
    assert (small["completed_requests"], large["completed_requests"]) == (2, 1)


async def test_a_folder_of_models(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    listed = await cards(
        f"models: {{models_dir: {folder}, default: org/other, available: {{mine: {{max_tokens: 99}}}}}}"
    )
    assert list(listed) == ["org/other", "mine"]
    assert listed["mine"]["max_model_len"] == 99
    assert "broken in models.models_dir is left out" in caplog.text


async def test_a_default_that_is_not_listed_is_served_too() -> None:
    listed = await cards(f"{FAST}  # the default\n".replace("opt-125m}", "opt-125m, available: {Qwen3-8B: {}}}"))
    assert list(listed) == ["facebook/opt-125m", "Qwen3-8B"]


async def test_other_names_for_the_default_model() -> None:
    listed = await cards("models: {default: facebook/opt-125m, served_names: [gpt-4o, gpt-5]}")
    assert list(listed) == ["gpt-4o", "gpt-5"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("available: {a: {path: nowhere/b}}", "models.available.a: model 'nowhere/b' is not known"),
        ("available: {a: {path: opt-125m, hardware: abacus}}", "models.available.a: hardware 'abacus' is not"),
        ("available: {a: {path: opt-125m, max_tokens: 5000}}", "max_model_len 5000 is more than the 2048 tokens"),
        ("available: {a: {path: opt-125m}, b: {path: opt-125m, aliases: [a]}}", "two models go by the name a"),
        ("available: {a: {path: Llama-3.1-70B-Instruct, hardware: L4}}", "models.available.a: meta-llama"),
        ("models_dir: /nowhere", "there is no folder /nowhere"),
        ("default: gpt-9", "model 'gpt-9' is not known"),
    ],
)
def test_what_cannot_be_served_is_one_sentence(text: str, said: str) -> None:
    with pytest.raises(SimServeError) as caught:
        available_models(settings(f"models: {{{text}}}"))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_list_with_names_says_the_same_as_a_mapping() -> None:
    mapping = json.dumps({"a": {"path": "x"}, "b": {"max_tokens": 3}})
    as_list = json.dumps([{"name": "a", "path": "x"}, {"name": "b", "max_tokens": 3}])
    one, other = (settings(f"models: {{available: {text}}}").models for text in (mapping, as_list))
    assert one == other
