"""Grammars that an answer has to satisfy, and texts that do.

``rules`` is what all of them become, ``ebnf`` and ``lark_syntax`` read the two notations of vLLM's, ``tags`` reads
structural tags, ``read`` tells them apart.
"""

from __future__ import annotations

from simserve.server.answers.grammars.read import read_grammar, read_structural_tag
from simserve.server.answers.grammars.rules import Grammar, GrammarError

__all__ = ["Grammar", "GrammarError", "read_grammar", "read_structural_tag"]
