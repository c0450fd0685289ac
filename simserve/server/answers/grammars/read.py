"""A client's grammar or structural tag as rules; the latest are kept, since clients repeat them."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from simserve.server.answers.grammars.ebnf import read_ebnf
from simserve.server.answers.grammars.lark_syntax import read_lark
from simserve.server.answers.grammars.rules import Grammar, GrammarError
from simserve.server.answers.grammars.tags import TagReader
from simserve.server.answers.schemas import check_schema

MAX_GRAMMAR_CHARACTERS = 64 * 1024

MAX_KEPT = 64


@lru_cache(maxsize=MAX_KEPT)
def read_grammar(text: str) -> Grammar:
    """A grammar in EBNF, or in Lark's notation; raises :class:`GrammarError`. It may take a second."""
    if len(text) > MAX_GRAMMAR_CHARACTERS:
        raise GrammarError(f"it has more than {MAX_GRAMMAR_CHARACTERS} characters")
    try:
        return read_ebnf(text) if "::=" in text else read_lark(text)
    except RecursionError:
        raise GrammarError("it is nested too deeply") from None


def read_structural_tag(tag: Any, param: str) -> Grammar:
    """A structural tag, as JSON or read; raises :class:`GrammarError`, or as :func:`check_schema` does."""
    try:
        raw = tag if isinstance(tag, str) else json.dumps(tag)
        return _read_tag(raw, param)
    except (ValueError, RecursionError):
        raise GrammarError("it is not JSON, or nested too deeply") from None


@lru_cache(maxsize=MAX_KEPT)
def _read_tag(raw: str, param: str) -> Grammar:
    fields = json.loads(raw)
    if not isinstance(fields, dict):
        raise GrammarError("a structural tag is an object")
    return TagReader(lambda schema: check_schema(schema, param), read_grammar).read(fields)
