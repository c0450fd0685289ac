"""Attention of one layer by the engine's own kernels, pages gathered from all over a KV cache that no cache holds.

Contexts of a batch are spread around their mean, as in whole steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

from simserve.calibration.microbench.bench import Bench, Pace, Progress
from simserve.calibration.microbench.engine import PAGE_TOKENS, spread
from simserve.calibration.microbench.machine import Machine
from simserve.calibration.microbench.stopwatch import Call
from simserve.calibration.points import AttentionPoints, MixedPoints
from simserve.models import ModelSpec
from simserve.scheduling import PrefillChunk

if TYPE_CHECKING:
    import torch

    from simserve.engines.torch.attention import KVPages, StepAttention
    from simserve.engines.torch.batch import Batch
    from simserve.engines.torch.sequence import Sequence
    from simserve.engines.torch.transformer import Transformer


class Sizes(NamedTuple):
    """Which batches on which contexts, and chunks of how many tokens on how many cached ones."""

    batches: tuple[int, ...]
    contexts: tuple[int, ...]
    chunks: tuple[int, ...]
    cached: tuple[int, ...]


CPU = Sizes((1, 2, 3, 4, 8, 12, 16, 32), (64, 256, 1024, 2048), (16, 64, 128, 256, 512, 1024), (0, 256, 1024, 2048))
GPU = Sizes(
    (1, 2, 3, 4, 8, 12, 16, 32, 64, 128), (64, 256, 1024, 4096), (16, 64, 128, 256, 512, 1024, 2048, 4096), CPU.cached
)
QUICK = Sizes((1, 4), (64, 256), (16, 64), (0, 128))


@dataclass(frozen=True)
class MeasuredAttention:
    """Decodes by batch and context, and chunks by their tokens and those cached before; of heads of ``head_dim``."""

    decodes: AttentionPoints
    chunks: MixedPoints
    heads: int
    head_dim: int


def measure_attention(
    bench: Bench, machine: Machine, model: ModelSpec, cold_bytes: int, pace: Pace, quick: bool, progress: Progress
) -> MeasuredAttention:
    """Attention as ``model`` has it, writing the new tokens' K and V included."""
    batches, contexts, chunks, cached = QUICK if quick else GPU if machine.kind == "gpu" else CPU
    most_tokens = max(batches[-1] * (contexts[-1] + 2 * PAGE_TOKENS), chunks[-1] + cached[-1] + PAGE_TOKENS)
    layers = _Layers(machine, model, most_tokens, cold_bytes)
    cases: dict[tuple[str, int, int], Call] = {}
    cases |= {("decode", b, c): layers.decodes(b, c) for b in batches for c in contexts}
    cases |= {("chunk", n, c): layers.chunk(n, c) for n in chunks for c in cached}
    timings = bench.measure(cases, pace, progress=progress)

    def points(kind: str) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.float64]], ...]:
        rows = [(timing.seconds, *key[1:]) for key, timing in timings.items() if key[0] == kind]
        seconds, first, second = np.array(rows, dtype=np.float64).T
        return seconds, first, second

    seconds, sequences, tokens = points("decode")
    heads, kv_heads = np.full(len(seconds), float(model.num_heads)), np.full(len(seconds), float(model.num_kv_heads))
    decodes = AttentionPoints(seconds, heads, kv_heads, sequences, tokens)
    seconds, chunk, before = points("chunk")
    nobody = np.zeros(len(seconds))
    return MeasuredAttention(
        decodes, MixedPoints(seconds, chunk, before, nobody, nobody), model.num_heads, model.head_dim
    )


class _Layers:
    """KV pages of as many layers as it takes to be cold again when the first comes round."""

    def __init__(self, machine: Machine, model: ModelSpec, most_tokens: int, cold_bytes: int) -> None:
        from simserve.engines.torch.attention import KVPages

        width = replace(model, num_layers=1).kv_bytes_per_token(machine.dtype_name)
        count = max(-(-cold_bytes // (width * most_tokens)), 2)
        num_pages = most_tokens // PAGE_TOKENS + 1
        self._model, self._machine = model, machine
        self._pages: KVPages = KVPages(
            replace(model, num_layers=count), num_pages, PAGE_TOKENS, machine.device, machine.dtype
        )
        self._order = np.random.default_rng(0).permutation(np.arange(1, num_pages)).tolist()

    def decodes(self, batch: int, context: int) -> Call:
        """A step of ``batch`` decodes that attend to ``context`` tokens on average, their new one included."""
        from simserve.engines.torch.batch import Batch

        step, pages = Batch(self._pages), list(self._order)
        step.add_decodes([_sequence(tokens, pages) for tokens in sorted(spread(batch, context), reverse=True)])
        return self._call(step)

    def chunk(self, tokens: int, cached: int) -> Call:
        """A step of one chunk."""
        from simserve.engines.torch.batch import Batch

        step = Batch(self._pages)
        step.add_chunk(PrefillChunk(_sequence(tokens + cached, list(self._order)), tokens, cached, samples=True))
        return self._call(step)

    def _call(self, step: Batch) -> Call:
        """Attention as the engine prepares it for ``step``, in one layer after the other."""
        import torch

        model, caught = self._model, _Caught()
        step.hidden(cast("Transformer", caught))
        assert caught.attention is not None
        heads = model.num_heads + 2 * model.num_kv_heads
        qkv = torch.randn(caught.rows, heads, model.head_dim, device=self._machine.device).to(self._machine.dtype)
        return partial(_attend, caught.attention, qkv, cycle(range(len(self._pages.layers))))


class _Caught:
    """In a transformer's place: keeps the attention that it is given."""

    def __init__(self) -> None:
        self.attention: StepAttention | None = None
        self.rows = 0

    def hidden(self, token_ids: torch.Tensor, positions: torch.Tensor, attention: StepAttention) -> torch.Tensor:
        self.attention, self.rows = attention, len(token_ids)
        return token_ids


def _sequence(tokens: int, pages: list[int]) -> Sequence:
    """Somebody with so many tokens, who takes the pages for them from ``pages``."""
    from simserve.engines.base import SamplingParams
    from simserve.engines.torch.sequence import Sequence

    made = Sequence("", [0] * tokens, 1, SamplingParams())
    count = -(-tokens // PAGE_TOKENS)
    made.pages = pages[-count:]
    del pages[-count:]
    return made


def _attend(attention: StepAttention, qkv: torch.Tensor, layers: Iterator[int]) -> torch.Tensor:
    return attention(next(layers), qkv)
