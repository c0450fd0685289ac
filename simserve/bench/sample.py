"""One thing to ask a server, whatever its protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Prompt = str | list[int] | list[str] | list[list[int]]
"""Text, token ids, or (for embeddings) several of either in one request."""


@dataclass(frozen=True)
class Media:
    """An image or a sound, encoded: ``format`` is its subtype, such as "png" or "wav"."""

    kind: Literal["image", "audio"]
    format: str
    content: bytes
    duration_s: float = 0.0


@dataclass(frozen=True)
class Sample:
    """A prompt and how long its answer shall be.

    ``input_tokens`` is what the data set believes the prompt has, ``is_exact`` whether a tokenizer counted it or the
    number of characters was all to go by. ``messages`` replace ``prompt`` for chat; ``documents`` are what a reranker
    shall order for the query ``prompt``; ``overrides`` are fields of this one request's body.
    """

    prompt: Prompt
    input_tokens: int
    output_tokens: int
    is_exact: bool = True
    messages: list[dict[str, Any]] | None = None
    media: tuple[Media, ...] = ()
    documents: list[str] = field(default_factory=list)
    overrides: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sequences(self) -> int:
        """Prompts in this request."""
        is_batch = isinstance(self.prompt, list) and bool(self.prompt) and not isinstance(self.prompt[0], int)
        return len(self.prompt) if is_batch else 1
