r"""Grammars in the EBNF of XGrammar and llama.cpp: ``root ::= "yes" | "no" [.!]?``."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from lark import Lark, Transformer
from lark.exceptions import UnexpectedInput, VisitError

from simserve.server.answers.grammars.rules import (
    Grammar,
    GrammarError,
    InTurn,
    Literal,
    Node,
    OneOf,
    Pattern,
    Reference,
    Repeated,
)

ROOT = "root"

NOTATION = r"""
    start: rule+
    rule: HEAD choices
    choices: sequence ("|" sequence)*
    sequence: repeated*
    ?repeated: atom | atom "*" -> any_number | atom "+" -> some | atom "?" -> maybe
        | atom "{" INT "}" -> exactly | atom "{" INT "," "}" -> at_least | atom "{" INT "," INT "}" -> between
    ?atom: STRING -> string | CLASS -> one_character | "." -> any_character | NAME -> name | "(" choices ")"

    HEAD.2: /[A-Za-z_][\w.-]*\s*::=/
    NAME: /[A-Za-z_][\w.-]*/
    INT: /[0-9]+/
    STRING: /"(?:[^"\\\n]|\\.)*"/ | /'(?:[^'\\\n]|\\.)*'/
    CLASS: /\[\^?(?:[^\]\\\n]|\\.)*\]/
    %ignore /#[^\n]*/
    %ignore /\s+/
"""

ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)
CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "0": "\0"}
PLAIN_ESCAPES = frozenset("\\\"'[]-^/.*+?(){}|$ ")

MAX_REPEATS = 10_000


def read_ebnf(text: str) -> Grammar:
    """The grammar; raises :class:`GrammarError` with line and column for what cannot be read."""
    try:
        rules = _Reader().transform(_parser().parse(text))
    except UnexpectedInput as error:
        raise GrammarError(f"line {error.line}, column {error.column} cannot be read as EBNF") from None
    except VisitError as error:
        if isinstance(error.orig_exc, GrammarError):
            raise error.orig_exc from None
        raise
    if ROOT not in rules:
        raise GrammarError(f"there is no rule `{ROOT}`, which is where a grammar begins")
    return Grammar(rules, ROOT)


@cache
def _parser() -> Lark:
    return Lark(NOTATION, parser="lalr", maybe_placeholders=False)


class _Reader(Transformer[Any, Any]):
    """Makes rules of a tree of :data:`NOTATION`."""

    def start(self, rules: list[tuple[str, Node]]) -> dict[str, Node]:
        by_name: dict[str, Node] = {}
        for name, node in rules:
            if name in by_name:
                raise GrammarError(f"the rule `{name}` is there twice")
            by_name[name] = node
        return by_name

    def rule(self, parts: list[Any]) -> tuple[str, Node]:
        return str(parts[0]).removesuffix("::=").rstrip(), parts[1]

    def choices(self, options: list[Node]) -> Node:
        return options[0] if len(options) == 1 else OneOf(tuple(options))

    def sequence(self, parts: list[Node]) -> Node:
        return parts[0] if len(parts) == 1 else InTurn(tuple(parts))

    def any_number(self, parts: list[Node]) -> Node:
        return Repeated(parts[0], 0, None)

    def some(self, parts: list[Node]) -> Node:
        return Repeated(parts[0], 1, None)

    def maybe(self, parts: list[Node]) -> Node:
        return Repeated(parts[0], 0, 1)

    def exactly(self, parts: list[Any]) -> Node:
        return _repeated(parts[0], parts[1], parts[1])

    def at_least(self, parts: list[Any]) -> Node:
        return _repeated(parts[0], parts[1], None)

    def between(self, parts: list[Any]) -> Node:
        return _repeated(parts[0], parts[1], parts[2])

    def string(self, parts: list[Any]) -> Node:
        return Literal(ESCAPE.sub(_unescaped, str(parts[0])[1:-1]))

    def one_character(self, parts: list[Any]) -> Node:
        return Pattern(_class(str(parts[0])[1:-1]))

    def any_character(self, parts: list[Any]) -> Node:
        return Pattern(".")

    def name(self, parts: list[Any]) -> Node:
        return Reference(str(parts[0]))


def _repeated(part: Node, least: str, most: str | None) -> Node:
    low, high = int(least[:9]), None if most is None else int(most[:9])
    if low > MAX_REPEATS or (high is not None and high < low):
        raise GrammarError(f"{{{low},{'' if high is None else high}}} is no number of times, or too large")
    return Repeated(part, low, high)


def _unescaped(match: re.Match[str]) -> str:
    code = match[1]
    if len(code) > 1:
        return _character(int(code[1:], 16))
    if code in CONTROLS:
        return CONTROLS[code]
    if code in PLAIN_ESCAPES:
        return code
    raise GrammarError(f"the escape \\{code} is not known")


def _character(code: int) -> str:
    if code > 0x10FFFF or 0xD800 <= code < 0xE000:
        raise GrammarError(f"there is no character with the number {code:#x}")
    return chr(code)


def _class(inside: str) -> str:
    """A set of characters as the ``re`` module writes it."""
    is_negated = inside.startswith("^")
    members = [
        (_unescaped(ESCAPE.fullmatch(one) or _never()) if one.startswith("\\") else one, one == "-")
        for one in re.findall(r"\\x[0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\U[0-9a-fA-F]{8}|\\.|.", inside[is_negated:], re.S)
    ]
    if not members:
        raise GrammarError("a set of characters is empty")
    written, at = [], 0
    while at < len(members):
        first = members[at][0]
        if at + 2 < len(members) and members[at + 1][1]:
            last = members[at + 2][0]
            if last < first:
                raise GrammarError(f"{first}-{last} is no range of characters")
            written.append(f"{re.escape(first)}-{re.escape(last)}")
            at += 3
        else:
            written.append(re.escape(first))
            at += 1
    return f"[{'^' if is_negated else ''}{''.join(written)}]"


def _never() -> re.Match[str]:
    raise GrammarError("an escape cannot be read")
