"""The runner by itself: plans made by hand, for measuring, and decode steps of fixed shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

torch = pytest.importorskip("torch", reason="the torch engine needs pip install simserve[torch]")

from simserve.engines.base import SamplingParams  # noqa: E402
from simserve.engines.torch import ModelRunner, generate, hand_made_plan, load_core, load_runner  # noqa: E402
from simserve.engines.torch.static_decode import StaticDecode  # noqa: E402
from simserve.errors import ConfigError  # noqa: E402
from simserve.models import load_model  # noqa: E402

if TYPE_CHECKING:
    from engines.torch.conftest import TinyModel

GREEDY = SamplingParams(temperature=0.0, ignore_eos=True)


@pytest.fixture(scope="module")
def runner() -> ModelRunner:
    return load_runner(load_model("simserve/tiny-llama"), num_pages=200, random_weights=True)


def test_a_step_without_a_scheduler(runner: ModelRunner) -> None:
    """Decodes on 100 and 30 tokens, a prompt of 50, and 20 tokens more of one that has 200 already."""
    plan = hand_made_plan(runner, decode_contexts=[100, 30], chunks=[(50, 0), (20, 200)])
    assert (plan.num_decodes, plan.decode_context_tokens, plan.prefill_tokens, plan.num_sampled) == (2, 130, 70, 4)
    first = runner.run(plan)
    assert len(first) == 4
    assert runner.run(plan) == first


def test_pages_of_a_hand_made_step_are_its_own(runner: ModelRunner) -> None:
    plan = hand_made_plan(runner, decode_contexts=[100, 30], chunks=[(50, 0)])
    pages = [page for request in (*plan.decodes, plan.chunks[0].request) for page in request.pages]  # type: ignore[attr-defined]
    assert len(pages) == len(set(pages)) == 7 + 2 + 4
    assert 0 not in pages


def test_more_than_the_pages_hold(runner: ModelRunner) -> None:
    with pytest.raises(ConfigError, match="199"):
        hand_made_plan(runner, decode_contexts=[3200])


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")  # torch.compile's own
@pytest.mark.parametrize("compiled", [False, True])
def test_decodes_of_fixed_shapes_give_the_same_answers(
    compiled: bool, tiny: Callable[[str], TinyModel], prompts: list[list[int]]
) -> None:
    """Padded to powers of two, as CUDA graphs want them, and run through a compiler."""
    model = tiny("llama-3.1")
    core = load_core(model.folder)
    core.runner._static = StaticDecode(core.runner.model, core.runner.pages, compiled=False)
    if compiled:
        core = load_core(model.folder, compiled=True)
        prompts = prompts[2:4]
    answers = [one.token_ids for one in generate(prompts, core, max_tokens=12, sampling=GREEDY)]
    assert answers == [model.greedy(prompt, 12) for prompt in prompts]


def test_steps_with_a_prompt_are_padded_to_few_numbers_of_rows(
    runner: ModelRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Products are compiled for each number of rows; decodes alone have few, and prompts of any length too."""
    rows: list[int] = []
    hidden = runner.model.hidden
    monkeypatch.setattr(runner.model, "hidden", lambda ids, *rest: rows.append(len(ids)) or hidden(ids, *rest))

    for decodes, chunks in (([], [(17, 0)]), ([], [(32, 0)]), ([20, 30], [(29, 16), (3, 0)]), ([20, 30, 40], [])):
        assert len(runner.run(hand_made_plan(runner, decodes, chunks))) == len(decodes) + len(chunks)

    assert rows == [32, 32, 48, 3]
