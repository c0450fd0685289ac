"""What a data set is, and what all of them share."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simserve.bench.backends.base import Backend
from simserve.bench.sample import Sample
from simserve.bench.tokens import TextTokenizer, TokenCounter
from simserve.errors import ConfigError, WorkloadError

SHORTEST_PROMPT, SHORTEST_ANSWER, LONGEST_PROMPT, LONGEST_BOTH = 4, 4, 1024, 2048
"""Which recorded conversations ``vllm bench serve`` lets through, in tokens."""


@dataclass(frozen=True)
class Order:
    """What is wanted of a data set: ``count`` samples for ``backend``, their tokens counted by ``counter``.

    ``settings`` are the options of the one data set, by their names on the command line with underscores; ``path`` is
    --dataset-path. Without ``oversample`` fewer samples come back where the data set has no more.
    """

    count: int
    seed: int
    counter: TokenCounter
    backend: Backend
    path: str | None = None
    output_tokens: int | None = None
    shuffle: bool = True
    oversample: bool = True
    skip_chat_template: bool = False
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def tokenizer(self) -> TextTokenizer | None:
        """The counter, if it can also turn ids into text."""
        return self.counter if isinstance(self.counter, TextTokenizer) else None

    def file(self) -> Path:
        """--dataset-path as a file that exists; raises :class:`ConfigError` if there is none."""
        if self.path is None:
            raise ConfigError("this data set is a file; give it with --dataset-path")
        path = Path(self.path)
        if not path.is_file():
            raise ConfigError(f"--dataset-path {self.path} is no file; check the path")
        return path

    def text(self) -> str:
        """The content of the file; raises :class:`WorkloadError` if that is no text."""
        path = self.file()
        try:
            return path.read_text("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise WorkloadError(f"{path} cannot be read as text in UTF-8 ({error})") from None

    def rendered(self, prompt: str) -> str:
        """``prompt`` as a model reads it: a completion server applies no chat template, so it is applied here."""
        if self.skip_chat_template or self.tokenizer is None or self.backend.name == "openai-chat":
            return prompt
        return self.tokenizer.chat([{"role": "user", "content": prompt}]) or prompt


@dataclass(frozen=True)
class Drawn:
    """Samples in the order they are sent; ``arrivals_s`` where the data set has times; ``notes`` for the user."""

    samples: list[Sample]
    arrivals_s: npt.NDArray[np.float64] | None = None
    notes: tuple[str, ...] = ()


Draw = Callable[[Order], Drawn]


def fill_up(samples: list[Sample], order: Order, source: str) -> list[Sample]:
    """As many samples as wanted: the first of them, or, if there are too few, more drawn from them with replacement.

    Raises :class:`WorkloadError` if there are none at all.
    """
    if not samples:
        raise WorkloadError(
            f"{source} has no usable sample: all are too short or too long; see docs/bench.md for the limits"
        )
    missing = order.count - len(samples)
    if missing <= 0:
        return samples[: order.count]
    if not order.oversample:
        return samples
    return samples + random.Random(order.seed).choices(samples, k=missing)


def is_usable(prompt_tokens: int, answer_tokens: int, *, forced: bool) -> bool:
    """Whether a recorded conversation is let through; with a ``forced`` answer length that may be short."""
    if prompt_tokens < SHORTEST_PROMPT or (answer_tokens < SHORTEST_ANSWER and not forced):
        return False
    return prompt_tokens <= LONGEST_PROMPT and prompt_tokens + answer_tokens <= LONGEST_BOTH
