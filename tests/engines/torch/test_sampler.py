"""Tokens are drawn as often as their probabilities say, and what narrows the choice narrows it exactly."""

from __future__ import annotations

import math
from collections import Counter

import pytest

torch = pytest.importorskip("torch", reason="the torch engine needs pip install simserve[torch]")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from simserve.engines.base import SamplingParams  # noqa: E402
from simserve.engines.torch import sampler as sampling  # noqa: E402
from simserve.engines.torch.sampler import Sampler  # noqa: E402
from simserve.engines.torch.sequence import Sequence  # noqa: E402

DRAWS = 4000
CHI_SQUARE_999 = {3: 16.27, 7: 24.32}
"""By degrees of freedom: what one run in a thousand exceeds; the draws below are always the same ones."""


def sequence(seed: int = 0, answer: tuple[int, ...] = (), **params: object) -> Sequence:
    made = Sequence("a", [1, 2], 10, SamplingParams(seed=seed, **params))  # type: ignore[arg-type]
    made.token_ids += answer
    return made


def draw(logits: torch.Tensor, draws: int = DRAWS, **params: object) -> Counter[int]:
    """How often each token comes, for so many seeds."""
    sequences = [sequence(seed, **params) for seed in range(draws)]
    samples = Sampler().sample(logits.repeat(draws, 1), sequences)
    return Counter(sample.token_id for sample in samples)


def chi_square(counts: Counter[int], probs: torch.Tensor) -> float:
    draws = sum(counts.values())
    return sum((counts[token] - draws * p) ** 2 / (draws * p) for token, p in enumerate(probs.tolist()) if p > 0)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.7])
def test_frequencies_are_probabilities(temperature: float) -> None:
    logits = torch.tensor([1.0, -2.0, 0.5, 0.0, 2.0, -1.0, 0.1, 1.5])
    counts = draw(logits, temperature=temperature)
    assert chi_square(counts, (logits / temperature).softmax(-1)) < CHI_SQUARE_999[7]


@pytest.mark.parametrize("narrow", [256, 3])
def test_top_k_and_top_p_leave_the_renormalised_rest(narrow: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 256 candidates at hand, and with so few that the whole vocabulary must be sorted after all."""
    monkeypatch.setattr(sampling, "NARROW", narrow)
    logits = torch.linspace(-2, 2, 20)
    probs = logits.softmax(-1)
    kept = torch.where(torch.arange(20) >= 16, probs, 0.0)  # the four likeliest
    assert chi_square(draw(logits, top_k=4), kept / kept.sum()) < CHI_SQUARE_999[3]
    largest_first = probs.flip(0).cumsum(0)
    count = int((largest_first < 0.8).sum()) + 1  # the fewest that reach 0.8
    kept = torch.where(torch.arange(20) >= 20 - count, probs, 0.0)
    assert count == 8
    assert chi_square(draw(logits, top_p=0.8), kept / kept.sum()) < CHI_SQUARE_999[7]
    both = draw(logits, top_k=12, top_p=0.5)
    share = probs[8:] / probs[8:].sum()
    count = int((share.flip(0).cumsum(0) < 0.5).sum()) + 1
    assert set(both) == set(range(20 - count, 20))


def test_min_p_is_relative_to_the_likeliest() -> None:
    logits = torch.tensor([0.0, math.log(0.5), math.log(0.11), math.log(0.09)])
    assert set(draw(logits, min_p=0.1)) == {0, 1, 2}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-8, 8), min_size=2, max_size=40),
    st.integers(0, 45),
    st.floats(0.01, 1.0),
    st.integers(0, 2**32),
    st.sampled_from([2, 7, 256]),
)
def test_few_candidates_or_all_the_token_is_the_same(
    values: list[float], top_k: int, top_p: float, seed: int, narrow: int
) -> None:
    """How many candidates are looked at first is a matter of speed."""
    logits = torch.tensor(values)
    params = {"top_k": top_k, "top_p": top_p}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "NARROW", narrow)
        (some,) = Sampler().sample(logits[None].clone(), [sequence(seed, **params)])
        patch.setattr(sampling, "NARROW", len(values))
        (all_of_them,) = Sampler().sample(logits[None].clone(), [sequence(seed, **params)])
    assert some == all_of_them


def test_a_seed_gives_the_same_token_whatever_else_is_in_the_batch() -> None:
    torch.manual_seed(0)
    logits = torch.randn(64, 5000)
    others = [sequence(100 + row, temperature=row % 3 * 0.7, top_k=row % 5 * 10) for row in range(64)]
    for row in (0, 17, 63):
        for params in ({}, {"top_k": 40}, {"top_p": 0.9}, {"temperature": 0.0}):
            mine = sequence(5, **params)
            (alone,) = Sampler().sample(logits[row : row + 1].clone(), [mine])
            batch = [*others[:row], mine, *others[row + 1 :]]
            assert Sampler().sample(logits.clone(), batch)[row] == alone


def test_the_next_token_has_a_number_of_its_own() -> None:
    assert sequence(1).uniform() == sequence(1).uniform()
    assert len({sequence(1, answer=(3,) * place).uniform() for place in range(50)}) == 50
    assert len({sequence(seed).uniform() for seed in range(50)}) == 50


def test_without_a_seed_answers_differ() -> None:
    one, other = (Sequence("a", [1], 5, SamplingParams()) for _ in range(2))
    assert one.seed != other.seed


def test_penalties_as_defined() -> None:
    """Repetition divides or multiplies logits of tokens seen in prompt or answer; the others subtract, answer only."""
    logits = torch.tensor([[1.0, 1.0, -1.0, 1.0, 1.0]])
    sampled = sequence(answer=(3, 3), repetition_penalty=2.0, frequency_penalty=0.25, presence_penalty=0.1)
    Sampler().sample(logits, [sampled])
    assert torch.allclose(logits, torch.tensor([[1.0, 0.5, -2.0, 0.5 - 2 * 0.25 - 0.1, 1.0]]))


def test_penalties_count_each_token_once() -> None:
    """The counts are kept from step to step."""
    sampled = sequence(frequency_penalty=1.0)
    sampler = Sampler()
    for _ in range(3):
        (sample,) = sampler.sample(torch.zeros(1, 4), [sampled])
        sampled.token_ids.append(sample.token_id)
    logits = torch.zeros(1, 4)
    sampler.sample(logits, [sampled])
    assert logits.sum() == -3


def test_a_bias_can_force_and_forbid() -> None:
    logits = torch.zeros(8)
    assert set(draw(logits, draws=50, logit_bias={3: 100.0})) == {3}
    assert 3 not in draw(logits, draws=200, logit_bias={3: -100.0})


def test_no_end_before_min_tokens() -> None:
    logits = torch.tensor([0.0, 9.0, 8.0, 1.0])
    sampler = Sampler(eos_token_ids=(1,))
    params = {"temperature": 0.0, "min_tokens": 2, "stop_token_ids": (2,)}
    for answer, token in (((), 3), ((5,), 3), ((5, 5), 1)):
        (sample,) = sampler.sample(logits[None].clone(), [sequence(answer=answer, **params)])
        assert sample.token_id == token


def test_logprobs_are_the_models_own() -> None:
    """Before temperature, bias and penalties; the likeliest first."""
    logits = torch.tensor([[0.0, 2.0, 1.0, -1.0]])
    expected = logits[0].log_softmax(-1)
    mine = sequence(temperature=0.0, logprobs=2, logit_bias={3: 50.0})
    (sample,) = Sampler().sample(logits.clone(), [mine])
    assert sample.token_id == 3
    assert sample.logprob is not None
    assert sample.logprob.logprob == pytest.approx(float(expected[3]))
    assert [token for token, _ in sample.logprob.top] == [1, 2]
    assert [value for _, value in sample.logprob.top] == pytest.approx([float(expected[1]), float(expected[2])])


def test_a_token_without_probability_is_never_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even by the largest number there is."""
    monkeypatch.setattr(Sequence, "uniform", lambda self: 1 - 2**-24)
    logits = torch.tensor([[0.1, 0.2, 0.3, -torch.inf]])
    for params in ({}, {"top_k": 3}, {"top_p": 0.99}):
        (sample,) = Sampler().sample(logits.clone(), [sequence(**params)])
        assert sample.token_id == 2
    monkeypatch.setattr(Sequence, "uniform", lambda self: 0.0)
    (sample,) = Sampler().sample(torch.tensor([[-torch.inf, 0.2, 0.3]]), [sequence()])
    assert sample.token_id == 1
