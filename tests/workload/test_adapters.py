"""Which LoRA adapter each request asks for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from simserve.errors import WorkloadError
from simserve.workload import AdapterChoice, read_trace, scale_rate, synthetic_workload


def test_the_same_seed_draws_the_same_and_leaves_other_draws_alone() -> None:
    choice = AdapterChoice(8, share=0.5, zipf=1.0)
    assert np.array_equal(choice.draw(3, 500), choice.draw(3, 500))
    assert not np.array_equal(choice.draw(3, 500), choice.draw(4, 500))
    assert choice.draw(3, 500).min() == 0
    assert choice.draw(3, 500).max() <= 8


def test_popularity_and_share() -> None:
    counts = np.bincount(AdapterChoice(4, share=0.75, zipf=1.0).draw(0, 40_000), minlength=5) / 40_000
    harmonic = 1 + 1 / 2 + 1 / 3 + 1 / 4
    assert counts == pytest.approx([0.25, *(0.75 / rank / harmonic for rank in range(1, 5))], abs=0.01)
    assert np.bincount(AdapterChoice(4).draw(0, 40_000))[1:] / 40_000 == pytest.approx([0.25] * 4, abs=0.01)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"adapters": 0}, "--lora-adapters 0 cannot be drawn from"),
        ({"adapters": 2, "share": 1.5}, "--lora-share 1.5 is no share"),
        ({"adapters": 2, "zipf": -1.0}, "--lora-zipf -1 is no exponent"),
    ],
)
def test_what_cannot_be_drawn_is_refused(values: dict[str, float], sentence: str) -> None:
    with pytest.raises(WorkloadError, match=sentence):
        AdapterChoice(**values)  # type: ignore[arg-type]


def test_a_trace_names_adapters(tmp_path: Path) -> None:
    plain = tmp_path / "trace.csv"
    plain.write_text("arrival_s,input_tokens,output_tokens,adapter\n2,10,5,sql\n0,10,5,law\n1,10,5,\n3,10,5,law\n")
    workload = read_trace(str(plain))
    assert workload.adapters is not None
    assert workload.adapters.tolist() == [2, 0, 1, 2]
    served = tmp_path / "served.jsonl"
    row = '{"arrival_s": %d, "input_tokens": 9, "output_tokens": 5, "unit_tokens": 16, "prefix_hashes": []%s}\n'
    served.write_text(row % (0, "") + row % (1, ', "adapter": "sql"'))
    assert read_trace(str(served)).adapters.tolist() == [0, 1]  # type: ignore[union-attr]


def test_without_a_column_there_are_none_and_copies_keep_theirs() -> None:
    workload = synthetic_workload(50, 5.0, 10, 10, seed=0)
    assert workload.adapters is None
    asking = replace(workload, adapters=AdapterChoice(3).draw(0, 50))
    twice = scale_rate(asking, 2.0, seed=1)
    assert asking.adapters is not None
    assert twice.adapters is not None
    assert np.array_equal(np.bincount(twice.adapters), 2 * np.bincount(asking.adapters))
