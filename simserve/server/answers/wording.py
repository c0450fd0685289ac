"""Sentences that keep to rules about words and tokens."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from simserve.errors import RequestError

BANNED, FORCED = -100.0, 100.0
"""OpenAI on ``logit_bias``: "-100 or 100 should result in a ban or exclusive selection of the relevant token"."""


@dataclass(frozen=True)
class WordRules:
    """Tokens and words that a text must not have, and tokens that it must be made of, if there are any."""

    banned: frozenset[int] = frozenset()
    banned_words: tuple[str, ...] = ()
    only: tuple[int, ...] = ()

    @classmethod
    def of(cls, bias: Mapping[int, float], allowed: Sequence[int], bad_words: Sequence[str]) -> WordRules:
        """What these three fields of a request come to. A bias between the extremes shifts odds that a simulated text,
        which is not sampled, does not have."""
        banned = frozenset(token for token, value in bias.items() if value <= BANNED)
        forced = [token for token, value in bias.items() if value >= FORCED]
        only = [token for token in (forced or allowed) if token not in banned]
        if (forced or allowed) and not only:
            raise RequestError("every token is banned; leave some")
        return cls(banned, tuple(bad_words), tuple(only))

    def __bool__(self) -> bool:
        return bool(self.banned or self.banned_words or self.only)


NO_RULES = WordRules()


class Answer(Protocol):
    """Text of a known number of tokens, one piece for each."""

    @property
    def token_ids(self) -> list[int]: ...

    @property
    def pieces(self) -> list[str]: ...


class TextSource(Protocol):
    """Where simulated text comes from; the same key gives the same text."""

    def answer(
        self, seed_key: str, count: int, banned: frozenset[int] = ..., banned_words: tuple[str, ...] = ...
    ) -> Answer:
        """``count`` tokens of text without those; raises :class:`RequestError` if there is none."""
        ...


class Vocabulary(Protocol):
    """What forced tokens need of a tokenizer."""

    def text_of(self, token_ids: Sequence[int]) -> str:
        """The text of ``token_ids``."""
        ...


@dataclass(frozen=True)
class Forced:
    """Text of tokens that had to be used."""

    token_ids: list[int]
    pieces: list[str]


@dataclass(frozen=True)
class Wording:
    """Sentences of ``text``, or, where rules leave only some tokens, text of these."""

    text: TextSource
    vocabulary: Vocabulary

    def answer(self, key: str, count: int, rules: WordRules) -> Answer:
        """``count`` tokens that keep to ``rules``; a longer answer to the same key begins with the shorter one.

        Raises :class:`RequestError` if nothing can be said by the rules.
        """
        if not rules:
            return self.text.answer(key, count)
        if not rules.only:
            return self.text.answer(key, count, rules.banned, rules.banned_words)
        pieces = {token: self.vocabulary.text_of([token]) for token in rules.only}
        rng = random.Random(key)
        ids = [rng.choice(rules.only) for _ in range(count)]
        return Forced(ids, [pieces[token] for token in ids])
