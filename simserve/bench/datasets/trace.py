"""``timed_trace``: requests as recorded (Azure, Mooncake, BurstGPT, ...), with their arrivals and what they share.

The recording has lengths, not texts. Each block of a prompt is drawn from its own id, so that equal ids give equal
text in any process, and the server's prefix cache finds what it would have found.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from simserve.bench.datasets.base import Drawn, Order
from simserve.bench.datasets.words import stable_rng, words
from simserve.bench.sample import Sample
from simserve.errors import ConfigError
from simserve.workload import Workload, cut_window, drop_long_prompts, read_trace, scale_rate, speed_up


def draw_trace(order: Order) -> Drawn:
    """The first rows of the trace, after the changes that were asked for; all rows if 0 or fewer are wanted."""
    if order.path is None:
        raise ConfigError("which trace? Give its file or address with --dataset-path")
    workload = changed(read_trace(order.path), order.settings, order.seed)
    if 0 < order.count < len(workload):
        workload = workload.take(np.arange(order.count))
    writer = _BlockWriter(order, workload)
    samples = [writer.sample(row) for row in range(len(workload))]
    notes = []
    if workload.prefix is not None:
        notes.append(f"of the prompt tokens, an endless prefix cache would find {shared_fraction(workload):.1%}")
    return Drawn(samples, workload.arrival_s, tuple(notes))


def changed(workload: Workload, settings: dict[str, Any], seed: int) -> Workload:
    """``workload`` with the options that change a trace, in the order that ``simserve simulate`` has for them."""
    window = settings.get("window")
    if window is not None:
        try:
            start_s, length_s = map(float, str(window).split(":"))
        except ValueError:
            raise ConfigError(f"--window is START:LENGTH in seconds, such as 600:60, not '{window}'") from None
        workload = cut_window(workload, start_s, length_s)
    if settings.get("rate_scale") is not None:
        workload = scale_rate(workload, float(settings["rate_scale"]), seed)
    if settings.get("max_input") is not None:
        workload = drop_long_prompts(workload, int(settings["max_input"]))
    return workload if settings.get("speed") is None else speed_up(workload, float(settings["speed"]))


def shared_fraction(workload: Workload) -> float:
    """The part of the prompt tokens that stand in a block which an earlier prompt had too."""
    assert workload.prefix is not None
    seen: set[int] = set()
    found = 0
    for row, tokens in enumerate(workload.input_tokens.tolist()):
        hit = 0
        for place, unit in enumerate(workload.prefix.of(row)):
            if unit in seen and hit == place:
                hit += 1
            seen.add(unit)
        found += min(hit * workload.prefix.unit_tokens, tokens)
    return found / int(workload.input_tokens.sum())


class _BlockWriter:
    """Prompts block by block: token ids for servers that take them, if the vocabulary is known, else text."""

    def __init__(self, order: Order, workload: Workload) -> None:
        self._order = order
        self._workload = workload
        self._tokenizer = order.tokenizer if "ids" in order.backend.takes else None
        self._blocks: dict[int, list[int] | str] = {}

    def sample(self, row: int) -> Sample:
        """Row ``row`` of the trace as a request."""
        workload = self._workload
        tokens = int(workload.input_tokens[row])
        unit = workload.prefix.unit_tokens if workload.prefix else tokens
        units = workload.prefix.of(row) if workload.prefix else []
        prompt: list[int] = []
        text = ""
        for place, start in enumerate(range(0, tokens, unit)):
            # Where the trace names fewer blocks than the prompt has, the rest is the prompt's own.
            block = self._block(units[place] if place < len(units) else (row, place), unit)
            if isinstance(block, str):
                text += block
            else:
                prompt += block[: tokens - start]
        if self._tokenizer is None:
            return Sample(text[: 4 * tokens], tokens, int(workload.output_tokens[row]), is_exact=False)
        return Sample(prompt, tokens, int(workload.output_tokens[row]))

    def _block(self, name: int | tuple[int, int], tokens: int) -> list[int] | str:
        """The block of that name, always whole; one that only a single prompt has is not kept."""
        if isinstance(name, int) and name in self._blocks:
            return self._blocks[name]
        rng = stable_rng(self._order.seed, name)
        block: list[int] | str
        if self._tokenizer is None:
            block = words(rng, tokens)
        else:
            block = rng.choice(self._tokenizer.allowed_ids, tokens).tolist()
        if isinstance(name, int):
            self._blocks[name] = block
        return block
