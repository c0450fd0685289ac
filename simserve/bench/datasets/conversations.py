"""``sharegpt``: recorded conversations, of which the first question is asked again."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import orjson

from simserve.bench.datasets.base import Drawn, Order, fill_up, is_usable
from simserve.bench.sample import Sample
from simserve.errors import WorkloadError


def draw_sharegpt(order: Order) -> Drawn:
    """First turns of at least two; the second says how long the answer shall be. Who speaks is not looked at."""
    path = order.file()
    try:
        entries = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise WorkloadError(f"{path} is no JSON ({error}); give ShareGPT's list of conversations") from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise WorkloadError(f"{path} is no list of objects; give ShareGPT's list of conversations")
    pairs = [pair for entry in entries if (pair := first_turns(entry)) is not None]
    if not pairs:
        raise WorkloadError(f"{path} has no conversation of two turns; each needs conversations: [{{from, value}}, ..]")
    return Drawn(samples_of(pairs, order, str(path)))


def first_turns(entry: Mapping[str, Any]) -> tuple[str, str] | None:
    """Question and answer of an entry, however its keys are called; None if it has no two turns."""
    turns = entry.get("conversations") or entry.get("conversation") or entry.get("messages")
    if not isinstance(turns, list) or len(turns) < 2:
        return None
    texts = [turn.get("value", turn.get("content")) if isinstance(turn, dict) else None for turn in turns[:2]]
    return (texts[0], texts[1]) if isinstance(texts[0], str) and isinstance(texts[1], str) else None


def samples_of(pairs: list[tuple[str, str]], order: Order, source: str) -> list[Sample]:
    """Questions with usable lengths, shuffled, as many as wanted."""
    forced = order.output_tokens
    if order.shuffle:
        pairs = pairs.copy()
        random.Random(order.seed).shuffle(pairs)
    samples: list[Sample] = []
    for question, answer in pairs:
        if len(samples) == order.count:
            break
        prompt_tokens = order.counter.count(question)
        answer_tokens = order.counter.count(answer) if forced is None else forced
        if is_usable(prompt_tokens, answer_tokens, forced=forced is not None):
            samples.append(Sample(question, prompt_tokens, answer_tokens, order.counter.is_exact))
    return fill_up(samples, order, source)
