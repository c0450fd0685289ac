"""How many tokens a text has: counted by the model's tokenizer where it is at hand, else estimated and marked so."""

from __future__ import annotations

from simserve.bench.tokens.counter import Estimate, TextTokenizer, TokenCounter, estimated_tokens
from simserve.bench.tokens.find import TokenizerOptions, find_counter

__all__ = ["Estimate", "TextTokenizer", "TokenCounter", "TokenizerOptions", "estimated_tokens", "find_counter"]
