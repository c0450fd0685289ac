"""``random`` and ``prefix_repetition``: prompts of exact length that mean nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from simserve.bench.datasets.base import Drawn, Order
from simserve.bench.datasets.words import words
from simserve.bench.sample import Sample
from simserve.bench.tokens import TextTokenizer
from simserve.errors import ConfigError

ROUNDS = 10
"""Attempts to make a text of just so many tokens: ids that were drawn may merge when their text is encoded again."""

Ids = npt.NDArray[np.int64]


def draw_random(order: Order) -> Drawn:
    """Lengths around a mean, one shared prefix; ``random_batch_size`` prompts to a request for embeddings.

    Draws, in this order: input lengths, output lengths, a place in the vocabulary for each prompt, the prefix.
    """
    rng = np.random.default_rng(order.seed)
    settings = order.settings
    prefix_tokens = int(settings.get("random_prefix_len", 0))
    input_ratio, output_ratio = range_ratios(settings.get("random_range_ratio", 0.0))
    added = order.tokenizer.added_per_prompt if order.tokenizer else 0
    inputs = _lengths(rng, max(0, int(settings.get("random_input_len", 1024)) - added), input_ratio, order.count, 0)
    outputs = _lengths(rng, int(settings.get("random_output_len", 128)), output_ratio, order.count, 1)
    if prefix_tokens < 0 or prefix_tokens + int(inputs.min()) < 1:
        raise ConfigError("a random prompt must have a token: raise --random-input-len or --random-prefix-len")
    lengths = inputs.tolist()
    writer = PromptWriter(order.tokenizer, rng)
    offsets = writer.offsets(order.count)
    prefix = writer.prefix(prefix_tokens)
    samples = [
        writer.sample(prefix, length, int(offset) + index, int(output))
        for index, (length, offset, output) in enumerate(zip(lengths, offsets, outputs, strict=True))
    ]
    batch = int(settings.get("random_batch_size", 1))
    return Drawn(samples if batch == 1 else _batched(samples, batch), notes=writer.notes())


def draw_prefix_repetition(order: Order) -> Drawn:
    """As many different prefixes as asked for, each continued in as many different ways, shuffled."""
    settings = order.settings
    prefix_tokens = int(settings.get("prefix_repetition_prefix_len", 256))
    suffix_tokens = int(settings.get("prefix_repetition_suffix_len", 256))
    prefixes = int(settings.get("prefix_repetition_num_prefixes", 10))
    output = int(settings.get("prefix_repetition_output_len", 128))
    if prefixes < 1 or order.count < prefixes:
        raise ConfigError(
            f"{order.count} requests cannot have {prefixes} different prefixes;"
            " raise --num-prompts or lower --prefix-repetition-num-prefixes"
        )
    rng = np.random.default_rng(order.seed)
    writer = PromptWriter(order.tokenizer, rng)
    samples: list[Sample] = []
    for _ in range(prefixes):
        prefix = writer.prefix(prefix_tokens)
        offsets = writer.offsets(order.count // prefixes)
        samples += [writer.sample(prefix, suffix_tokens, int(offset), output) for offset in offsets]
    shuffled = [samples[place] for place in rng.permutation(len(samples))] if order.shuffle else samples
    left_out = order.count - len(samples)
    note = f"{left_out} of {order.count} requests left out: each of {prefixes} prefixes is used equally often"
    return Drawn(shuffled, notes=(*writer.notes(), *([note] if left_out else [])))


class PromptWriter:
    """Writes prompts of so many tokens: out of the tokenizer's vocabulary, or of plain words where there is none."""

    def __init__(self, tokenizer: TextTokenizer | None, rng: np.random.Generator) -> None:
        self._tokenizer = tokenizer
        self._rng = rng
        self._missed = 0

    def offsets(self, count: int) -> Ids:
        """Where in the vocabulary each of ``count`` prompts begins."""
        return self._rng.integers(0, self._tokenizer.vocab_size if self._tokenizer else 2**31, count)

    def prefix(self, tokens: int) -> Ids | str:
        """A beginning for several prompts: ids, or text where there is no tokenizer."""
        if self._tokenizer is None:
            return words(self._rng, tokens) if tokens else ""
        return self._rng.choice(self._tokenizer.allowed_ids, tokens)

    def sample(self, prefix: Ids | str, tokens: int, offset: int, output_tokens: int) -> Sample:
        """A prompt of ``prefix`` and ``tokens`` more, which depend on ``offset`` alone."""
        if isinstance(prefix, str):
            text = prefix + words(np.random.default_rng(offset), tokens)
            return Sample(text, max(1, round(len(text) / 4)), output_tokens, is_exact=False)
        assert self._tokenizer is not None
        allowed = self._tokenizer.allowed_ids
        body = allowed[(offset + np.arange(tokens)) % len(allowed)]
        text, count = self._exact_text(self._tokenizer, [*prefix.tolist(), *body.tolist()])
        return Sample(text, count, output_tokens)

    def notes(self) -> tuple[str, ...]:
        """What did not come out as asked."""
        if not self._missed:
            return ()
        return (f"{self._missed} prompts miss the asked number of tokens: no text of just that length was found",)

    def _exact_text(self, tokenizer: TextTokenizer, ids: Sequence[int]) -> tuple[str, int]:
        target = len(ids)
        text = tokenizer.decode(ids)
        for cut_more in range(ROUNDS):
            again = tokenizer.encode(text)
            if len(again) == target:
                return text, target
            if len(again) > target:
                # A cut may go through a character, whose halves then count for more: next time cut before it.
                again = again[: target - cut_more]
            again += self._rng.choice(tokenizer.plain_ids, max(target - len(again), 0)).tolist()
            text = tokenizer.decode(again)
        self._missed += 1
        return text, tokenizer.count(text)


def range_ratios(value: Any) -> tuple[float, float]:
    """``--random-range-ratio``: one number, or ``{"input": r, "output": r}``; each at least 0 and below 1."""
    try:
        parsed = json.loads(value) if isinstance(value, str) else value
        ratios = (parsed["input"], parsed["output"]) if isinstance(parsed, dict) else (parsed, parsed)
        found = float(ratios[0]), float(ratios[1])
    except (ValueError, KeyError, TypeError):
        found = (-1.0, -1.0)
    if not all(0.0 <= ratio < 1.0 for ratio in found):
        raise ConfigError(
            f'--random-range-ratio is {value}; give a number from 0 to below 1, or {{"input": 0.1, "output": 0.5}}'
        )
    return found


def _lengths(rng: np.random.Generator, mean: int, ratio: float, count: int, least: int) -> Ids:
    """Whole numbers evenly from ``mean (1 - ratio)``, rounded down, to ``mean (1 + ratio)``, rounded up."""
    low = max(least, math.floor(mean * (1 - ratio)))
    high = max(least, math.ceil(mean * (1 + ratio)))
    return rng.integers(low, high + 1, count)


def _batched(samples: list[Sample], size: int) -> list[Sample]:
    """Several prompts to a request."""
    if size < 1:
        raise ConfigError(f"--random-batch-size is {size}; give at least 1")
    groups = [samples[start : start + size] for start in range(0, len(samples), size)]
    return [
        Sample(
            [str(sample.prompt) for sample in group],
            sum(sample.input_tokens for sample in group),
            0,
            all(sample.is_exact for sample in group),
        )
        for group in groups
    ]
