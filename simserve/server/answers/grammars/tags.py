"""Structural tags: text in which stretches between a beginning and an end have a form of their own.

Both of vLLM's notations: ``structures`` with ``triggers``, and XGrammar's nested ``format``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from simserve.server.answers.grammars.rules import (
    Grammar,
    GrammarError,
    InTurn,
    Json,
    Literal,
    Node,
    OneOf,
    Pattern,
    Prose,
    Reference,
)

Fields = Mapping[str, Any]
CheckSchema = Callable[[Any], None]
ReadGrammar = Callable[[str], Grammar]

MAX_NESTED = 40


class TagReader:
    """Reads structural tags; ``check_schema`` raises for what is no JSON schema, ``read_grammar`` reads a grammar."""

    def __init__(self, check_schema: CheckSchema, read_grammar: ReadGrammar) -> None:
        self._check_schema = check_schema
        self._read_grammar = read_grammar
        self._rules: dict[str, Node] = {}
        self._depth = 0
        self._kinds: Mapping[str, Callable[[Fields], Node]] = {
            "const_string": lambda fields: Literal(_text(fields, "value")),
            "json_schema": self._json,
            "regex": self._regex,
            "grammar": self._grammar,
            "any_text": lambda _: Prose(),
            "sequence": lambda fields: InTurn(self._all(fields, "elements")),
            "or": lambda fields: OneOf(self._all(fields, "elements")),
            "tag": self._tag,
            "triggered_tags": self._triggered,
            "tags_with_separator": lambda fields: OneOf(self._tags(fields)),
        }

    def read(self, fields: Fields) -> Grammar:
        """The grammar; raises :class:`GrammarError` for what is not understood."""
        if isinstance(fields.get("format"), dict):
            root = self._node(fields["format"])
        elif isinstance(fields.get("structures"), list):
            root = self._structures(fields)
        else:
            raise GrammarError("give `format`, or `structures` with `triggers`")
        return Grammar({**self._rules, "root": root}, "root")

    def _structures(self, fields: Fields) -> Node:
        structures, triggers = fields["structures"], _texts(fields, "triggers")
        if not structures or not all(isinstance(one, dict) for one in structures):
            raise GrammarError("`structures` has to be a list of objects, and not empty")
        begins = [_text(one, "begin") for one in structures]
        for begin in begins:
            if not any(begin.startswith(trigger) for trigger in triggers):
                raise GrammarError(f"no trigger is the beginning of {begin[:80]!r}")
        tags = [
            InTurn((Literal(begin), self._checked(one.get("schema", {})), Literal(_text(one, "end"))))
            for begin, one in zip(begins, structures, strict=True)
        ]
        return InTurn((Prose(triggers), OneOf(tuple(tags))))

    def _node(self, fields: Any) -> Node:
        kind = fields.get("type") if isinstance(fields, dict) else None
        if not isinstance(kind, str) or kind not in self._kinds:
            raise GrammarError(f"the format {kind!r:.80} is not known; known are {', '.join(self._kinds)}")
        self._depth += 1
        if self._depth > MAX_NESTED:
            raise GrammarError("its formats are nested too deeply")
        node = self._kinds[kind](fields)
        self._depth -= 1
        return node

    def _all(self, fields: Fields, name: str) -> tuple[Node, ...]:
        found = fields.get(name)
        if not isinstance(found, list) or not found:
            raise GrammarError(f"`{name}` has to be a list of formats, and not empty")
        return tuple(map(self._node, found))

    def _tags(self, fields: Fields) -> tuple[Node, ...]:
        tags = fields.get("tags")
        if not isinstance(tags, list):
            raise GrammarError("`tags` has to be a list")
        return self._all({"tags": [{"type": "tag", **one} if isinstance(one, dict) else one for one in tags]}, "tags")

    def _checked(self, schema: Any) -> Node:
        self._check_schema(schema)
        return Json(schema)

    def _json(self, fields: Fields) -> Node:
        return self._checked(fields.get("json_schema"))

    def _regex(self, fields: Fields) -> Node:
        pattern = _text(fields, "pattern")
        try:
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise GrammarError(f"the pattern {pattern[:80]!r} cannot be read ({error})") from None
        return Pattern(pattern)

    def _grammar(self, fields: Fields) -> Node:
        """The rules of another grammar, under names of their own."""
        inner, prefix = self._read_grammar(_text(fields, "grammar")), f"grammar-{len(self._rules)}-"
        self._rules |= inner.renamed(prefix)
        return Reference(prefix + inner.root)

    def _tag(self, fields: Fields) -> Node:
        ends = _texts(fields, "end") if isinstance(fields.get("end"), list) else (_text(fields, "end"),)
        content = self._node(fields.get("content"))
        return InTurn((Literal(_text(fields, "begin")), content, OneOf(tuple(map(Literal, ends)))))

    def _triggered(self, fields: Fields) -> Node:
        tags = OneOf(self._tags(fields))
        return tags if fields.get("at_least_one") is True else InTurn((Prose(_texts(fields, "triggers")), tags))


def _text(fields: Fields, name: str) -> str:
    text = fields.get(name)
    if not isinstance(text, str):
        raise GrammarError(f"`{name}` has to be a string")
    return text


def _texts(fields: Fields, name: str) -> tuple[str, ...]:
    texts = fields.get(name)
    if not isinstance(texts, list) or not texts or not all(isinstance(one, str) for one in texts):
        raise GrammarError(f"`{name}` has to be a list of strings, and not empty")
    return tuple(texts)
