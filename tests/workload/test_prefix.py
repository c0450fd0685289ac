"""Block hashes: equal exactly as long as two prompts are."""

from __future__ import annotations

import subprocess
import sys
import time

from hypothesis import given
from hypothesis import strategies as st

from simserve.workload import block_hashes

TOKENS = st.lists(st.integers(0, 3), max_size=80)


@given(TOKENS, TOKENS, st.integers(1, 20))
def test_hashes_agree_exactly_while_the_prompts_do(one: list[int], two: list[int], unit_tokens: int) -> None:
    hashes_one, hashes_two = block_hashes(one, unit_tokens), block_hashes(two, unit_tokens)
    assert len(hashes_one) == len(one) // unit_tokens
    for block, (left, right) in enumerate(zip(hashes_one, hashes_two, strict=False), start=1):
        assert (left == right) == (one[: block * unit_tokens] == two[: block * unit_tokens])


def test_a_hash_stands_for_everything_before_it() -> None:
    """The same 16 tokens after another beginning are another block."""
    same = list(range(16))
    assert block_hashes(same + same)[0] != block_hashes(same + same)[1]
    assert block_hashes([1] * 16 + same)[1] != block_hashes([2] * 16 + same)[1]


def test_hashes_are_the_same_in_every_process() -> None:
    code = "from simserve.workload import block_hashes; print(block_hashes(range(40)))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert other.strip() == str(block_hashes(list(range(40))))


def test_hashes_fit_the_columns_of_a_workload() -> None:
    assert all(-(2**63) <= value < 2**63 for value in block_hashes([2**32 - 1] * 1600))


def test_a_long_prompt_is_hashed_quickly() -> None:
    token_ids = list(range(100_000))
    started = time.process_time()
    block_hashes(token_ids)
    assert time.process_time() - started < 0.2
