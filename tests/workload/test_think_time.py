"""Think times: constant or varying, and how one is written."""

from __future__ import annotations

import numpy as np
import pytest

from simserve.errors import WorkloadError
from simserve.workload import parse_think_time


def test_without_a_variation_everyone_thinks_as_long() -> None:
    assert parse_think_time("2.5").draw(np.random.default_rng(0), 3).tolist() == [2.5, 2.5, 2.5]


@pytest.mark.parametrize("cv", [0.5, 1.0, 2.0])
def test_mean_and_variation_are_those_asked_for(cv: float) -> None:
    times = parse_think_time(f"3:{cv}").draw(np.random.default_rng(7), 100_000)
    assert times.mean() == pytest.approx(3, rel=0.03)
    assert times.std() / times.mean() == pytest.approx(cv, rel=0.03)


@pytest.mark.parametrize("text", ["-1", "1:-1", "inf", "nan", "long", "1:", "1:2:3"])
def test_a_bad_think_time_is_one_sentence(text: str) -> None:
    with pytest.raises(WorkloadError, match=r"^the think time '.*(cannot be|is not understood); give"):
        parse_think_time(text)
