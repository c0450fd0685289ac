"""Logprobs of simulated tokens: made up, but of one piece.

Simulated text comes from no model, so there is no probability behind it. These are what a model that is sure of its
words would say: every token is the likeliest in its place, the alternatives follow with half the rest each, and all
probabilities of a place sum to less than 1. They depend on the answer's key and the place alone.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from simserve.server.logprobs import Told, name_by_id

LEAST_SURE, MOST_SURE = 0.4, 0.995


@dataclass(frozen=True)
class Likelihoods:
    """Of one answer, or prompt; ``top`` alternatives are wanted, ``token_bytes`` says what ids below ``ids`` are."""

    key: str
    top: int
    token_bytes: Callable[[int], bytes]
    ids: int

    def told(self, token_ids: Sequence[int], texts: Sequence[str], first: int) -> list[Told]:
        """What to tell of the tokens ``token_ids``, which read ``texts``; the first of them is number ``first``."""
        pairs = zip(token_ids, texts, strict=True)
        return [self._one(token_id, text.encode(), first + at) for at, (token_id, text) in enumerate(pairs)]

    def of_prompt(self, token_ids: Sequence[int], texts: Sequence[str]) -> Iterator[Told]:
        """What to tell of a prompt's tokens, one by one; nothing comes before the first, so it has no logprob."""
        likelihoods = replace(self, key=f"{self.key}|prompt")
        for at, (token_id, text) in enumerate(zip(token_ids, texts, strict=True)):
            (told,) = likelihoods.told([token_id], [text], at)
            yield told if at else Told(told.raw, None)

    def mean(self, tokens: int) -> float:
        """Of an answer of so many tokens."""
        return sum(math.log(self._surety(self._rng(at))) for at in range(tokens)) / max(1, tokens)

    def _rng(self, place: int) -> random.Random:
        return random.Random(f"{self.key}|{place}|logprob")

    @staticmethod
    def _surety(rng: random.Random) -> float:
        return LEAST_SURE + (MOST_SURE - LEAST_SURE) * rng.random()

    def _one(self, token_id: int, raw: bytes, place: int) -> Told:
        rng = self._rng(place)
        surety = self._surety(rng)
        logprob = math.log(surety)
        seen, top, ids = {raw}, [(raw, logprob)][: self.top], [token_id][: self.top]
        rest = 1.0 - surety
        for _ in range(100 * self.top):  # a vocabulary may have fewer texts than are wanted
            if len(top) >= self.top:
                break
            other = rng.randrange(self.ids)
            text = self.token_bytes(other)
            if other == token_id or text in seen or not _is_text(text):
                continue
            seen.add(text)
            rest /= 2
            top.append((text, math.log(rest)))
            ids.append(other)
        return Told(raw, logprob, tuple(top), tuple(ids))


@dataclass(frozen=True)
class NamedByIds(Likelihoods):
    """The same with ``token_id:42`` in the place of every token's text."""

    def told(self, token_ids: Sequence[int], texts: Sequence[str], first: int) -> list[Told]:
        """See :meth:`Likelihoods.told`."""
        return super().told(token_ids, [name_by_id(token_id).decode() for token_id in token_ids], first)


def _is_text(raw: bytes) -> bool:
    try:
        return bool(raw.decode())
    except UnicodeDecodeError:
        return False
