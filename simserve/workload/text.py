"""The words of a simulated answer: readable, of an exact number of tokens, the same at every run."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

from simserve.errors import ModelError, RequestError
from simserve.workload.tokenizer import Tokenizer

SENTENCES = Path(__file__).parent / "data/sentences.txt"
BEFORE = "It is."  # short, since it is encoded once per token of every sentence


@dataclass(frozen=True)
class Answer:
    """A simulated answer: ``pieces[i]`` is the text of ``token_ids[i]``, and the pieces join to the answer."""

    token_ids: list[int]
    pieces: list[str]


class SyntheticText:
    """Writes answers for one tokenizer, by stringing together sentences that ship with SimServe.

    Only sentences are used of which every beginning, cut after any token, encodes to just the tokens up to there: so
    an answer may stop anywhere and still count right. Raises :class:`ModelError` if the tokenizer allows none.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._phrases = _phrases(tokenizer)

    def answer(
        self,
        seed_key: str | bytes,
        count: int,
        banned: frozenset[int] = frozenset(),
        banned_words: tuple[str, ...] = (),
    ) -> Answer:
        """``count`` tokens (1 or more) that depend on ``seed_key`` alone, not on the process or the machine.

        A longer answer to the same key begins with the shorter one. ``tokenizer.encode`` of the joined pieces gives
        ``count`` tokens. Takes a few microseconds, and about a tenth of one per token.

        Sentences with ``banned`` token ids or words are left out; raises :class:`RequestError` if none are left.
        """
        phrases = self._phrases.without(banned, banned_words) if banned or banned_words else self._phrases
        token_ids: list[int] = []
        pieces: list[str] = []
        table = phrases.opening
        for choice in _choices(seed_key, len(table)):
            phrase = table[choice]
            token_ids += phrase.token_ids
            pieces += phrase.pieces
            if len(pieces) >= count:
                break
            table = phrases.following
        return Answer(token_ids[:count], pieces[:count])


@dataclass(frozen=True)
class _Phrases:
    """The same sentences twice, in the same order: as the first of an answer, and after another (with a space)."""

    opening: list[Answer]
    following: list[Answer]

    def without(self, banned: frozenset[int], banned_words: tuple[str, ...]) -> _Phrases:
        """Those that have none of these; raises :class:`RequestError` if there are fewer than two."""
        kept = [
            at
            for at, both in enumerate(zip(self.opening, self.following, strict=True))
            if not any(_has(phrase, banned, banned_words) for phrase in both)
        ]
        if len(kept) < 2:
            raise RequestError("no simulated text can be written without the banned tokens and words; ban fewer")
        return _Phrases([self.opening[at] for at in kept], [self.following[at] for at in kept])


def _has(phrase: Answer, banned: frozenset[int], banned_words: tuple[str, ...]) -> bool:
    text = "".join(phrase.pieces)
    return not banned.isdisjoint(phrase.token_ids) or any(word in text for word in banned_words)


@lru_cache(maxsize=8)
def _phrases(tokenizer: Tokenizer) -> _Phrases:
    """The sentences that are safe to cut and to join in this tokenizer, verified one by one and then all in a row."""
    sentences = SENTENCES.read_text("utf-8").splitlines()
    opening, following = [], []
    for sentence in sentences:
        first, next_one = _cut(tokenizer, "", sentence), _cut(tokenizer, BEFORE, " " + sentence)
        if first and next_one:
            opening.append(first)
            following.append(next_one)
    if len(opening) < 2 or not _joins(tokenizer, [opening[0], *following]):
        raise ModelError(
            f"the tokenizer of {tokenizer.name} merges tokens across words, so no text of an exact token count can be"
            " written with it; remove its tokenizer.json to use the one that ships with SimServe"
        )
    return _Phrases(opening, following)


def _cut(tokenizer: Tokenizer, before: str, sentence: str) -> Answer | None:
    """``sentence`` cut into tokens as it stands after ``before``; None if some beginning would encode otherwise."""
    ids_before = tokenizer.encode(before)
    ids, pieces = tokenizer.split(before + sentence)
    skipped = len(ids_before)
    phrase = Answer(ids[skipped:], pieces[skipped:])
    if "".join(phrase.pieces) != sentence:
        return None
    text = before
    for length, piece in enumerate(pieces[skipped:], start=skipped + 1):
        text += piece
        if tokenizer.encode(text) != ids[:length]:
            return None
    return phrase


def _joins(tokenizer: Tokenizer, phrases: list[Answer]) -> bool:
    """Whether all phrases in a row encode to their own tokens, so that none merges with its neighbour."""
    text = "".join(piece for phrase in phrases for piece in phrase.pieces)
    return tokenizer.encode(text) == [token_id for phrase in phrases for token_id in phrase.token_ids]


def _choices(seed_key: str | bytes, count: int) -> Iterator[int]:
    """An endless sequence of indices below ``count`` (2 or more), never the same twice running.

    BLAKE2b of the key and a counter: as random as needed, and independent of ``PYTHONHASHSEED``.
    """
    key = blake2b(seed_key.encode("utf-8", "surrogatepass") if isinstance(seed_key, str) else seed_key).digest()
    last = -1
    counter = 0
    while True:
        block = blake2b(key + counter.to_bytes(8, "little")).digest()
        for word in struct.unpack("<16I", block):
            choice = word % count
            last = (choice + 1) % count if choice == last else choice
            yield last
        counter += 1
