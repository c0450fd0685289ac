"""Counting tokens: a tokenizer, or the number of characters."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from simserve.workload import Tokenizer

LATIN_CHARACTERS_PER_TOKEN = 4.0
WIDE_CHARACTERS_PER_TOKEN = 1.5
"""What vocabularies of 100,000 tokens and more take on average: for English, and for Chinese, Japanese, Korean."""

WIDE = re.compile("[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]")

WORD = re.compile(r" [a-zA-Z]{2,}")
PLAIN_TRIED = 500


def estimated_tokens(text: str) -> int:
    """About how many tokens ``text`` has, judged by its characters; at least 1 if there are any."""
    wide = len(WIDE.findall(text))
    return math.ceil(wide / WIDE_CHARACTERS_PER_TOKEN + (len(text) - wide) / LATIN_CHARACTERS_PER_TOKEN)


class TokenCounter(Protocol):
    """Counts the tokens of a text; ``is_exact`` says whether as the model does."""

    name: str
    is_exact: bool

    def count(self, text: str) -> int:
        """Tokens of ``text``, without any that a server adds around it."""
        ...


class Estimate:
    """Counts by characters."""

    name = "estimate"
    is_exact = False

    def count(self, text: str) -> int:
        """About how many."""
        return estimated_tokens(text)


class TextTokenizer:
    """A tokenizer of the ``tokenizers`` library."""

    is_exact = True

    def __init__(self, inner: Tokenizer, name: str) -> None:
        self._inner = inner
        self.name = name
        self.vocab_size = inner.vocab_size
        self.added_per_prompt = inner.added_per_prompt
        self._allowed: npt.NDArray[np.int64] | None = None
        self._plain: npt.NDArray[np.int64] | None = None

    def count(self, text: str) -> int:
        """Tokens of ``text``."""
        return len(self._inner.encode(text))

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text``."""
        return self._inner.encode(text)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of ``token_ids``."""
        return self._inner.decode(token_ids)

    @property
    def allowed_ids(self) -> npt.NDArray[np.int64]:
        """Every id that a prompt may have: all but the special ones."""
        if self._allowed is None:
            special = self._inner.special_ids
            self._allowed = np.array([one for one in range(self.vocab_size) if one not in special], dtype=np.int64)
        return self._allowed

    @property
    def plain_ids(self) -> npt.NDArray[np.int64]:
        """Some ids of whole words with a blank before them: put after any text, each adds just one token to it."""
        if self._plain is None:
            words = [one for one in self.allowed_ids.tolist() if WORD.fullmatch(self.decode([one]))]
            plain = [one for one in words[:PLAIN_TRIED] if self.encode(self.decode([one])) == [one]]
            self._plain = np.array(plain or self.allowed_ids, dtype=np.int64)
        return self._plain

    def chat(self, messages: list[dict[str, Any]]) -> str | None:
        """``messages`` as the model's own template renders them; this library has no templates."""
        return None


class TransformersTokenizer(TextTokenizer):
    """A tokenizer of the ``transformers`` library, which may run code of the model's and knows its chat template."""

    def __init__(self, inner: Any, name: str) -> None:
        self._hub = inner
        self.name = name
        self.vocab_size = len(inner)
        self.added_per_prompt = inner.num_special_tokens_to_add()
        special = set(inner.all_special_ids)
        self._allowed = np.array([one for one in range(self.vocab_size) if one not in special], dtype=np.int64)
        self._plain = None

    def count(self, text: str) -> int:
        return len(self.encode(text))

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._hub.encode(text, add_special_tokens=False)
        return ids

    def decode(self, token_ids: Sequence[int]) -> str:
        text: str = self._hub.decode(list(token_ids))
        return text

    def chat(self, messages: list[dict[str, Any]]) -> str | None:
        if not self._hub.chat_template:
            return None
        text: str = self._hub.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return text
