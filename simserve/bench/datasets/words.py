"""Text where no tokenizer is at hand: plain words, cut to the characters that so many tokens have on average."""

from __future__ import annotations

import math
from functools import lru_cache
from hashlib import blake2b

import numpy as np

from simserve.bench.tokens.counter import LATIN_CHARACTERS_PER_TOKEN
from simserve.workload.text import SENTENCES


@lru_cache(maxsize=1)
def _words() -> list[str]:
    """Every word of the sentences that ship with SimServe, once."""
    return sorted(set(SENTENCES.read_text("utf-8").split()))


def words(rng: np.random.Generator, tokens: int) -> str:
    """Random words of about ``tokens`` tokens, a blank before each."""
    characters = math.ceil(tokens * LATIN_CHARACTERS_PER_TOKEN)
    known = _words()
    places = rng.integers(0, len(known), characters // 4 + 8)  # words and their blanks have 4 characters or more
    text = "".join([" " + known[place] for place in places])
    while len(text) < characters:
        text += text
    return text[:characters]


def stable_rng(*parts: object) -> np.random.Generator:
    """A generator that depends on ``parts`` alone, whatever the process or its hash seed."""
    digest = blake2b(repr(parts).encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))
