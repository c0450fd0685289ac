"""Greedy answers are those of transformers, token by token, however the scheduler cuts and mixes the work."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

torch = pytest.importorskip("torch", reason="the torch engine needs pip install simserve[torch]")

from engines.torch.conftest import ANSWER_TOKENS  # noqa: E402
from engines.torch.tiny_models import MODELS  # noqa: E402
from simserve.config import EngineOptions  # noqa: E402
from simserve.engines.base import SamplingParams  # noqa: E402
from simserve.engines.torch import EngineCore, generate, load_core  # noqa: E402
from simserve.engines.torch.sequence import Sequence  # noqa: E402
from simserve.errors import RequestError  # noqa: E402
from simserve.scheduling import POLICIES  # noqa: E402

if TYPE_CHECKING:
    from engines.torch.conftest import TinyModel

Tiny = Callable[[str], "TinyModel"]
GREEDY = SamplingParams(temperature=0.0, ignore_eos=True)


def answers(core: EngineCore, prompts: list[list[int]], tokens: int = ANSWER_TOKENS) -> list[list[int]]:
    return [one.token_ids for one in generate(prompts, core, max_tokens=tokens, sampling=GREEDY)]


@pytest.mark.parametrize("name", MODELS)
def test_answers_are_those_of_transformers(name: str, tiny: Tiny, prompts: list[list[int]]) -> None:
    """In one batch, in chunks next to decodes, and with so few blocks that sequences are preempted."""
    model = tiny(name)
    expected = [model.greedy(prompt) for prompt in prompts]
    core = load_core(model.folder)
    assert answers(core, prompts) == expected
    assert (
        answers(load_core(model.folder, options=EngineOptions(max_num_batched_tokens=24, max_num_seqs=6)), prompts)
        == expected
    )
    short = load_core(model.folder, options=EngineOptions(num_gpu_blocks=14, max_num_batched_tokens=64, max_num_seqs=8))
    assert answers(short, prompts) == expected
    assert short.preemptions > 0
    assert short.scheduler.blocks.used_blocks == 0


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_drives_it(policy: str, tiny: Tiny, prompts: list[list[int]]) -> None:
    model = tiny("llama-3.1")
    core = load_core(model.folder, options=EngineOptions(policy=policy, max_num_seqs=4, num_gpu_blocks=60))
    assert answers(core, prompts) == [model.greedy(prompt) for prompt in prompts]


def test_decodes_of_very_different_lengths_are_grouped(tiny: Tiny, prompts: list[list[int]]) -> None:
    """Gathered in one piece, in groups, and one by one."""
    model = tiny("qwen2")
    expected = [model.greedy(prompt) for prompt in prompts]
    core = load_core(model.folder)
    for tokens in (10**6, 200, 0):
        core.runner.pages.group_bytes = tokens * core.runner.pages.page_bytes // 16
        assert answers(core, prompts) == expected


def test_a_shared_prefix_is_computed_once(tiny: Tiny, prompts: list[list[int]]) -> None:
    model = tiny("llama-2")
    system = prompts[5][:64]
    asked = [system + prompt[:9] for prompt in prompts]
    expected = [model.greedy(prompt) for prompt in asked]

    def computed(prefix_caching: bool) -> int:
        core = load_core(model.folder, options=EngineOptions(enable_prefix_caching=prefix_caching))
        core.ledger = []
        assert answers(core, asked) == expected
        return sum(tokens for step in core.ledger for tokens, _ in step.chunks)

    # Four blocks of 16, nine times: even prompts of the same step find what the first of them computes.
    assert computed(prefix_caching=False) - computed(prefix_caching=True) == 9 * 64


def test_the_next_turn_finds_the_answer_too(tiny: Tiny, prompts: list[list[int]]) -> None:
    """40 tokens and 24 of the answer are four blocks; the last token's KV was never computed, so three are found."""
    model = tiny("llama-2")
    core = load_core(model.folder)
    first = Sequence("first", prompts[4], ANSWER_TOKENS, GREEDY)
    run(core, first)
    second = Sequence("second", [*first.token_ids, *prompts[3]], ANSWER_TOKENS, GREEDY)
    run(core, second)
    assert second.cached_tokens == 48
    assert second.token_ids[second.input_tokens :] == model.greedy([*first.token_ids, *prompts[3]])


def test_arrivals_join_while_others_decode(tiny: Tiny, prompts: list[list[int]]) -> None:
    model = tiny("qwen3")
    core = load_core(model.folder, options=EngineOptions(max_num_batched_tokens=32, max_num_seqs=8))
    sequences = [Sequence(str(at), prompt, ANSWER_TOKENS, GREEDY) for at, prompt in enumerate(prompts)]
    coming = list(sequences)
    mixed = 0
    core.ledger = []
    while coming or core.has_work:
        if coming:
            core.add(coming.pop(0))
        core.step()
        mixed += bool(core.ledger[-1].num_decodes and core.ledger[-1].chunks)
    assert mixed > 5
    for sequence, prompt in zip(sequences, prompts, strict=True):
        assert sequence.token_ids[sequence.input_tokens :] == model.greedy(prompt)


def test_the_ledger_says_when_each_step_ran_and_what_was_in_it(tiny: Tiny, prompts: list[list[int]]) -> None:
    core = load_core(tiny("llama-2").folder)
    core.ledger = []
    answers(core, prompts[:3], tokens=3)
    assert [step.index for step in core.ledger] == [0, 1, 2]
    assert [step.chunks for step in core.ledger] == [((1, 0), (5, 0), (16, 0)), (), ()]
    assert [(step.num_decodes, step.decode_context_tokens) for step in core.ledger] == [(0, 0), (3, 22), (3, 25)]
    assert all(step.start_s < step.end_s for step in core.ledger)


def test_an_answer_ends_at_the_end_token_unless_that_is_ignored(tiny: Tiny, prompts: list[list[int]]) -> None:
    """The config's end token is 2; transformers stops there, and so does the engine."""
    model = tiny("llama-2")
    core = load_core(model.folder)
    core.runner.model.details.__dict__["eos_token_ids"] = (model.greedy(prompts[2])[5],)
    (stopped,) = generate([prompts[2]], core, max_tokens=20, sampling=SamplingParams(temperature=0.0))
    assert stopped.token_ids == model.greedy(prompts[2])[: len(stopped.token_ids)]
    assert (len(stopped.token_ids) <= 6, stopped.finish_reason, stopped.stop_reason) == (True, "stop", None)
    (ignored,) = generate([prompts[2]], core, max_tokens=20, sampling=GREEDY)
    assert (len(ignored.token_ids), ignored.finish_reason) == (20, "length")


def test_a_stop_token_ends_an_answer_and_is_named(tiny: Tiny, prompts: list[list[int]]) -> None:
    model = tiny("llama-2")
    token = model.greedy(prompts[3])[4]
    sampling = SamplingParams(temperature=0.0, ignore_eos=True, stop_token_ids=(token,))
    (stopped,) = generate([prompts[3]], load_core(model.folder), max_tokens=20, sampling=sampling)
    assert stopped.token_ids[-1] == token
    assert (stopped.finish_reason, stopped.stop_reason) == ("stop", token)


def run(core: EngineCore, sequence: Sequence) -> None:
    core.add(sequence)
    while core.has_work:
        core.step()


def test_text_in_one_call(tiny: Tiny) -> None:
    """What a notebook asks; the module at the top brings torch along only then."""
    import simserve

    core = load_core(tiny("llama-2").folder)
    texts = [one.text for one in simserve.generate(["a", "b c"], core, max_tokens=5, sampling=GREEDY)]
    assert texts == [one.text for one in simserve.generate(["a", "b c"], core, max_tokens=5, sampling=GREEDY)]
    assert [len(simserve.generate(text, core, max_tokens=5)) for text in ("a", ["a", [5, 6]])] == [1, 2]
    with pytest.raises(RequestError, match="empty"):
        simserve.generate([[]], core)
