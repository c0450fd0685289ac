"""Attention of one layer by the engine's own kernels, pages gathered from all over a KV cache that no cache holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simserve.calibration.microbench.bench import Bench, Pace, Progress
from simserve.calibration.microbench.machine import Machine
from simserve.calibration.points import AttentionPoints, MixedPoints
from simserve.models import ModelSpec

if TYPE_CHECKING:
    import torch

    from simserve.engines.torch.attention import KVPages, Piece, StepAttention

PAGE_TOKENS = 16


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
    most_tokens = max(batches[-1] * (contexts[-1] + PAGE_TOKENS), chunks[-1] + cached[-1] + PAGE_TOKENS)
    layers = _Layers(machine, model, most_tokens, cold_bytes)
    cases: dict[tuple[str, int, int], Callable[[], object]] = {}
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

        one_layer = replace(model, num_layers=1)
        width = one_layer.kv_bytes_per_token(machine.dtype_name)
        count = max(-(-cold_bytes // (width * most_tokens)), 2)
        self._model, self._machine = model, machine
        num_pages = most_tokens // PAGE_TOKENS + 1
        self._pages: KVPages = KVPages(
            replace(model, num_layers=count), num_pages, PAGE_TOKENS, machine.device, machine.dtype
        )
        self._order = np.random.default_rng(0).permutation(np.arange(1, num_pages)).tolist()

    def decodes(self, batch: int, context: int) -> Callable[[], object]:
        """A step of ``batch`` decodes whose new token is the last of ``context``."""
        from simserve.engines.torch.attention import decode_pieces

        each = -(-context // PAGE_TOKENS)
        tables = [self._order[row * each : (row + 1) * each] for row in range(batch)]
        slots = [table[-1] * PAGE_TOKENS + (context - 1) % PAGE_TOKENS for table in tables]
        return self._call(batch, slots, decode_pieces(self._pages, 0, tables, [context] * batch))

    def chunk(self, tokens: int, cached: int) -> Callable[[], object]:
        """A step of one chunk."""
        from simserve.engines.torch.attention import Chunk

        table = self._order[: -(-(tokens + cached) // PAGE_TOKENS)]
        slots = [table[at // PAGE_TOKENS] * PAGE_TOKENS + at % PAGE_TOKENS for at in range(cached, cached + tokens)]
        return self._call(tokens, slots, [Chunk(self._pages, 0, tokens, cached, table)])

    def _call(self, rows: int, slots: list[int], pieces: Sequence[Piece]) -> Callable[[], object]:
        import torch

        from simserve.engines.torch.attention import StepAttention

        model, device = self._model, self._machine.device
        heads = model.num_heads + 2 * model.num_kv_heads
        qkv = torch.randn(rows, heads, model.head_dim, device=device).to(self._machine.dtype)
        step = StepAttention(self._pages, torch.tensor(slots, device=device), pieces)
        return partial(_attend, step, qkv, cycle(range(len(self._pages.layers))))


def _attend(step: StepAttention, qkv: torch.Tensor, layers: Iterator[int]) -> torch.Tensor:
    return step(next(layers), qkv)
