"""Lengths: each distribution by its statistics at a fixed seed, and how one is written."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simserve.errors import WorkloadError
from simserve.workload import (
    ConstantLength,
    LengthDistribution,
    LognormalLength,
    UniformLength,
    ZipfLength,
    parse_length,
)
from simserve.workload.lengths import draw_weighted

COUNT = 100_000


def draw(distribution: LengthDistribution, count: int = COUNT, seed: int = 7) -> np.ndarray:
    return distribution.draw(np.random.default_rng(seed), count)


def test_uniform_lengths_reach_both_ends_evenly() -> None:
    values, counts = np.unique(draw(UniformLength(3, 12)), return_counts=True)
    assert values.tolist() == list(range(3, 13))
    assert counts == pytest.approx(np.full(10, COUNT / 10), rel=0.05)


def test_lognormal_lengths_have_the_mean_and_the_spread_of_the_logarithm() -> None:
    lengths = draw(LognormalLength(1000, 0.8))
    assert lengths.mean() == pytest.approx(1000, rel=0.02)
    assert np.log(lengths).std() == pytest.approx(0.8, rel=0.02)
    assert np.median(lengths) == pytest.approx(1000 * math.exp(-0.32), rel=0.02)


def test_zipf_lengths_fall_with_a_power_of_their_rank() -> None:
    lengths = draw(ZipfLength(1.5, 1000))
    assert np.mean(lengths == 1) / np.mean(lengths == 4) == pytest.approx(8, rel=0.1)
    assert lengths.max() <= 1000
    assert draw(ZipfLength(0, 9)).mean() == pytest.approx(5, rel=0.02)


def test_what_has_no_chance_is_never_drawn() -> None:
    edges = np.array([0.0, 0.25, 0.5, np.nextafter(1.0, 0.0)])
    drawn = draw_weighted(edges, np.array([1, 2, 3, 4]), np.array([0.0, 1.0, 1.0, 0.0]))
    assert drawn.tolist() == [2, 2, 3, 3]


def test_lengths_of_a_trace_are_drawn_from_the_column_asked_for(tmp_path: Path) -> None:
    trace = tmp_path / "mine.csv"
    trace.write_text("arrival_s,input_tokens,output_tokens\n0,10,1\n1,20,2\n2,20,3\n")
    inputs = draw(parse_length(f"trace:{trace}", "--input-len", "input_tokens"))
    outputs = draw(parse_length(f"trace:{trace}", "--output-len", "output_tokens"))

    assert set(inputs) == {10, 20}
    assert np.mean(inputs == 20) == pytest.approx(2 / 3, abs=0.01)
    assert set(outputs) == {1, 2, 3}


distributions = st.one_of(
    st.builds(ConstantLength, st.integers(1, 10**6)),
    st.builds(lambda low, extra: UniformLength(low, low + extra), st.integers(1, 10**6), st.integers(0, 10**6)),
    st.builds(LognormalLength, st.integers(1, 10**5), st.integers(0, 40).map(lambda tenths: tenths / 8)),
    st.builds(ZipfLength, st.integers(0, 30).map(lambda tenths: tenths / 8), st.integers(1, 5000)),
)


@given(distributions, st.integers(0, 2**32))
def test_a_distribution_reads_what_it_writes_and_draws_the_same_again(
    distribution: LengthDistribution, seed: int
) -> None:
    lengths = draw(distribution, 50, seed)
    assert lengths.dtype == np.int64
    assert lengths.min() >= 1
    assert np.array_equal(lengths, draw(parse_length(str(distribution), "--input-len"), 50, seed))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("0", "--input-len: a length of 0 tokens is too short"),
        ("many", "--input-len is 'many', which is not understood; give N, uniform:LOW:HIGH"),
        ("uniform:5", "--input-len is 'uniform:5', which is not understood"),
        ("uniform:9:5", "--input-len: lengths from 9 to 5 tokens cannot be drawn"),
        ("normal:5:1", "is 'normal:5:1', which is not understood"),
        ("lognormal:nan:1", "a lognormal length of mean nan"),
        ("lognormal:100:-1", "sigma -1 cannot be drawn"),
        ("zipf:1.2:0", "a zipf length of exponent 1.2 and maximum 0"),
        ("zipf:1.2:x", "is 'zipf:1.2:x', which is not understood"),
        ("trace:x.csv", "is 'trace:x.csv', which is not understood"),
    ],
)
def test_a_bad_length_is_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(WorkloadError) as caught:
        parse_length(text, "--input-len")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_length_from_a_trace_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(WorkloadError, match=r"cannot read the trace nowhere\.csv"):
        parse_length("trace:nowhere.csv", "--input-len", "input_tokens")
