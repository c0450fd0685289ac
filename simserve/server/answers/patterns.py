"""Texts that match a regular expression, drawn from its parse tree."""

from __future__ import annotations

import random
import re._constants as kinds  # type: ignore[import-not-found]
import re._parser as parser  # type: ignore[import-not-found]
import string
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from simserve.server.answers.too_large import TooLarge

MORE_REPEATS = 3
"""How often something is repeated beyond what it must be, at most."""

CATEGORIES: Mapping[Any, str] = {
    kinds.CATEGORY_DIGIT: string.digits,
    kinds.CATEGORY_SPACE: " ",
    kinds.CATEGORY_WORD: string.ascii_letters + string.digits + "_",
    kinds.CATEGORY_NOT_DIGIT: string.ascii_letters,
    kinds.CATEGORY_NOT_SPACE: string.ascii_letters + string.digits,
    kinds.CATEGORY_NOT_WORD: " -.,",
}
PLAIN = string.ascii_letters + string.digits + " .,-"
PRINTABLE = "".join(chr(code) for code in range(32, 127))


class PatternSampler:
    """Draws texts with ``rng``; a text that reaches ``most`` characters raises :class:`TooLarge`.

    Anchors and look-arounds are taken for granted: the caller checks what comes out.
    """

    def __init__(self, rng: random.Random, most: int) -> None:
        self._rng = rng
        self._left = most
        self._groups: dict[int, str] = {}
        self._draw: Mapping[Any, Callable[[Any], str]] = {
            kinds.LITERAL: chr,
            kinds.NOT_LITERAL: lambda code: rng.choice(PLAIN.replace(chr(code), "")),
            kinds.ANY: lambda _: rng.choice(PLAIN),
            kinds.IN: self._one_of,
            kinds.BRANCH: lambda branches: self._all(rng.choice(branches[1])),
            kinds.SUBPATTERN: self._group,
            kinds.ATOMIC_GROUP: self._all,
            kinds.GROUPREF: lambda number: self._groups.get(number, ""),
            kinds.MAX_REPEAT: self._repeat,
            kinds.MIN_REPEAT: self._repeat,
            kinds.POSSESSIVE_REPEAT: self._repeat,
        }

    def text(self, pattern: str) -> str:
        """A text for ``pattern``, which the ``re`` module can read."""
        return self._all(parser.parse(pattern))

    def _all(self, parts: Iterable[tuple[Any, Any]]) -> str:
        return "".join([self._one(kind, value) for kind, value in parts])

    def _one(self, kind: Any, value: Any) -> str:
        draw = self._draw.get(kind)
        text = draw(value) if draw else ""
        if kind in (kinds.LITERAL, kinds.NOT_LITERAL, kinds.ANY, kinds.IN, kinds.GROUPREF):
            self._left -= max(1, len(text))
        if self._left < 0:
            raise TooLarge("a pattern asks for too long a text")
        return text

    def _group(self, value: tuple[int | None, int, int, Any]) -> str:
        text = self._all(value[3])
        if value[0] is not None:
            self._groups[value[0]] = text
        return text

    def _repeat(self, value: tuple[int, int, Any]) -> str:
        least, most, parts = value
        times = self._rng.randint(least, min(int(most), least + MORE_REPEATS))
        self._left -= times  # what is repeated may be empty
        if self._left < 0:
            raise TooLarge("a pattern asks for too long a text")
        return "".join([self._all(parts) for _ in range(times)])

    def _one_of(self, members: list[tuple[Any, Any]]) -> str:
        is_negated = members[0][0] is kinds.NEGATE
        if not is_negated:
            return self._rng.choice(self._characters(self._rng.choice(members)))
        banned = {character for member in members[1:] for character in self._characters(member, whole=True)}
        left = [character for character in PRINTABLE if character not in banned]
        return self._rng.choice(left or ["\u00e9"])

    @staticmethod
    def _characters(member: tuple[Any, Any], *, whole: bool = False) -> str:
        """Characters that a member of a set stands for; of a large range some, unless the ``whole`` is wanted."""
        kind, value = member
        if kind is kinds.LITERAL:
            return chr(value)
        if kind is kinds.RANGE:
            last = min(value[1], value[0] + 127)
            return "".join(chr(code) for code in range(value[0], last + 1) if not 0xD800 <= code < 0xE000) or "x"
        return CATEGORIES[value] + (string.whitespace if whole and value is kinds.CATEGORY_SPACE else "")
