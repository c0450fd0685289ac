"""Grammars in Lark's notation, which vLLM takes too: ``start: "yes" | "no" /[.!]/?``."""

from __future__ import annotations

import re

from lark import Lark
from lark.exceptions import UnexpectedInput
from lark.grammar import NonTerminal, Symbol

from simserve.server.answers.grammars.rules import (
    Grammar,
    GrammarError,
    InTurn,
    Literal,
    Node,
    OneOf,
    Pattern,
    Reference,
)

START = "start"

RULE = re.compile(r"^[ \t]*[!?]*([a-z_][a-z0-9_]*)(?:\{[^}]*\})?(?:\.-?\d+)?[ \t]*:", re.MULTILINE)
IMPORT = re.compile(r"^[ \t]*%import\s+(?!common\b)(\S+)", re.MULTILINE)
"""Lark reads what is imported from files; those of its own are all that a client may have read."""


def read_lark(text: str) -> Grammar:
    """The grammar from the rule ``start``, or else its first; raises :class:`GrammarError` for what cannot be read."""
    imported = IMPORT.search(text)
    if imported:
        raise GrammarError(f"only `common` can be imported, not `{imported[1][:80]}`")
    names = RULE.findall(text)
    if not names:
        raise GrammarError("there is no rule in it: it is neither EBNF (`root ::= ...`) nor Lark's (`start: ...`)")
    start = START if START in names else names[0]
    try:
        compiled = Lark(text, parser="earley", lexer="dynamic", start=start, maybe_placeholders=False)
    except UnexpectedInput as error:
        raise GrammarError(f"line {error.line}, column {error.column} cannot be read as Lark's notation") from None
    except Exception as error:  # also what reading its regular expressions raises
        raise GrammarError(f"Lark cannot read it ({str(error).splitlines()[0][:200]})") from None
    return Grammar(_rules_of(compiled), start)


def _rules_of(compiled: Lark) -> dict[str, Node]:
    regexes = {one.name: _checked(one.pattern.to_regexp()) for one in compiled.terminals}
    # Where space is ignored, words are told apart by it.
    is_spaced = any(re.fullmatch(regexes[name], " ") for name in compiled.ignore_tokens if name in regexes)
    space = (Literal(" "),) if is_spaced else ()

    def node_of(symbol: Symbol) -> Node:
        if isinstance(symbol, NonTerminal):
            return Reference(str(symbol.name))
        terminal = Pattern(regexes[symbol.name])
        return InTurn((terminal, *space)) if space else terminal

    options: dict[str, list[Node]] = {}
    for rule in compiled.rules:
        options.setdefault(str(rule.origin.name), []).append(InTurn(tuple(map(node_of, rule.expansion))))
    return {name: OneOf(tuple(nodes)) for name, nodes in options.items()}


def _checked(regex: str) -> str:
    try:
        re.compile(regex)
    except (re.error, OverflowError, RecursionError) as error:
        raise GrammarError(f"the pattern {regex[:80]!r} cannot be read ({error})") from None
    return regex
