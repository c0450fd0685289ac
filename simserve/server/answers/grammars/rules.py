"""A grammar as rules, and texts drawn from it: rule by rule, and soon by the shortest way to an end."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simserve.server.answers.json_values import Hints
from simserve.server.answers.patterns import MORE_REPEATS, PatternSampler
from simserve.server.answers.schemas import value_for
from simserve.server.answers.string_formats import words
from simserve.server.answers.too_large import TooLarge

DEEP = 12
"""Rules within rules; below, each choice is the one that ends soonest, and nothing is repeated more than it must be."""

MAX_CHARACTERS = 10_000
MAX_STEPS = 20_000
"""Parts that a text is put together of."""

TRIES = 20
"""Texts that are drawn for a regular expression, which may say more than can be drawn from, until one matches."""


class GrammarError(Exception):
    """A grammar that cannot be read, or that no text satisfies; the message says why, and where."""


@dataclass(frozen=True)
class Literal:
    """Just this text."""

    text: str


@dataclass(frozen=True)
class Pattern:
    """A text that matches a regular expression."""

    regex: str


@dataclass(frozen=True)
class Json:
    """JSON that satisfies a schema, which has been checked."""

    schema: Any


@dataclass(frozen=True)
class Prose:
    """Words, without any of the texts in ``never``."""

    never: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reference:
    """What the rule of that name says."""

    name: str


@dataclass(frozen=True)
class InTurn:
    """One after the other."""

    parts: Sequence[Node]


@dataclass(frozen=True)
class OneOf:
    """One of these."""

    options: Sequence[Node]


@dataclass(frozen=True)
class Repeated:
    """So many times; None for ``most`` is any number."""

    part: Node
    least: int
    most: int | None


Node = Literal | Pattern | Json | Prose | Reference | InTurn | OneOf | Repeated


class Grammar:
    """Rules by name, and the name of the one that an answer has to satisfy.

    Raises :class:`GrammarError` for a rule that is not there, and for rules that never come to an end.
    """

    def __init__(self, rules: Mapping[str, Node], root: str) -> None:
        for name in (root, *(name for node in rules.values() for name in _names_in(node))):
            if name not in rules:
                raise GrammarError(f"there is no rule `{name[:80]}`")
        self._rules = rules
        self.root = root
        self._heights = dict.fromkeys(rules, math.inf)
        self._find_heights()
        if self._heights[root] == math.inf:
            raise GrammarError(f"the rule `{root}` never comes to an end")

    def text(self, key: str, asked: str, param: str) -> str:
        """A text that satisfies the grammar, the same for the same ``key``. Raises :class:`TooLarge` if it is huge."""
        try:
            return _Drawing(self, key, Hints.of(asked), param).text(Reference(self.root), 0)
        except RecursionError:
            raise TooLarge("its rules are nested too deeply") from None

    def renamed(self, prefix: str) -> dict[str, Node]:
        """Its rules, with ``prefix`` before all names."""
        return {prefix + name: _renamed(node, prefix) for name, node in self._rules.items()}

    def rule(self, name: str) -> Node:
        """What ``name`` stands for."""
        return self._rules[name]

    def height(self, node: Node) -> float:
        """How many rules lie within each other on the shortest way to an end."""
        match node:
            case Reference(name):
                return 1 + self._heights[name]
            case InTurn(parts):
                return max(map(self.height, parts), default=0)
            case OneOf(options):
                return min(map(self.height, options), default=math.inf)
            case Repeated(part, least, _):
                return self.height(part) if least else 0
        return 0

    def _find_heights(self) -> None:
        """A rule's height is known once those are that it needs: so they come out from the lowest up."""
        users: dict[str, set[str]] = {name: set() for name in self._rules}
        for name, node in self._rules.items():
            for needed in _names_in(node):
                users[needed].add(name)
        due = list(self._rules)
        while due:
            again: dict[str, None] = {}
            for name in due:
                height = self.height(self._rules[name])
                if height < self._heights[name]:
                    self._heights[name] = height
                    again |= dict.fromkeys(users[name])
            due = list(again)


class _Drawing:
    """One text in the making."""

    def __init__(self, grammar: Grammar, key: str, hints: Hints, param: str) -> None:
        self._grammar = grammar
        self._rng = random.Random(f"{key}|grammar")
        self._key, self._hints, self._param = key, hints, param
        self._steps = self._characters = 0

    def text(self, node: Node, depth: int) -> str:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise TooLarge("its rules make too long a text")
        match node:
            case Reference(name):
                return self.text(self._grammar.rule(name), depth + 1)
            case InTurn(parts):
                return "".join([self.text(part, depth) for part in parts])
            case OneOf(options):
                return self.text(self._chosen(options, depth), depth)
            case Repeated(part, least, most):
                times = least if depth >= DEEP else self._times(least, most)
                return "".join([self.text(part, depth) for _ in range(times)])
        drawn = self._terminal(node)
        self._characters += len(drawn)
        if self._characters > MAX_CHARACTERS:
            raise TooLarge("its rules make too long a text")
        return drawn

    def _chosen(self, options: Sequence[Node], depth: int) -> Node:
        if depth >= DEEP:
            return min(options, key=self._grammar.height)
        return self._rng.choice([one for one in options if self._grammar.height(one) < math.inf])

    def _times(self, least: int, most: int | None) -> int:
        if least > MAX_STEPS:
            raise TooLarge("it repeats something too often")
        return self._rng.randint(least, least + MORE_REPEATS if most is None else min(most, least + MORE_REPEATS))

    def _terminal(self, node: Literal | Pattern | Json | Prose) -> str:
        match node:
            case Literal(text):
                return text
            case Pattern(regex):
                return self._matching(regex)
            case Json(schema):
                value = value_for(schema, f"{self._key}|{self._steps}", self._hints, self._param)
                return json.dumps(value, ensure_ascii=False)
            case Prose(never):
                drawn = words(self._rng, self._rng.randint(4, 12)).capitalize() + ".\n"
                return "" if any(one in drawn for one in never) else drawn

    def _matching(self, regex: str) -> str:
        for _ in range(TRIES):
            text = PatternSampler(self._rng, MAX_CHARACTERS).text(regex)
            if re.fullmatch(regex, text):
                return text
        raise TooLarge(f"no text was found that matches {regex[:80]!r}")


def _names_in(node: Node) -> list[str]:
    match node:
        case Reference(name):
            return [name]
        case InTurn(parts) | OneOf(parts):
            return [name for part in parts for name in _names_in(part)]
        case Repeated(part, _, _):
            return _names_in(part)
    return []


def _renamed(node: Node, prefix: str) -> Node:
    match node:
        case Reference(name):
            return Reference(prefix + name)
        case InTurn(parts):
            return InTurn(tuple(_renamed(part, prefix) for part in parts))
        case OneOf(options):
            return OneOf(tuple(_renamed(option, prefix) for option in options))
        case Repeated(part, least, most):
            return Repeated(_renamed(part, prefix), least, most)
    return node
