"""How long a prefill chunk's attention takes in one layer: a straight line over its cached tokens per chunk length."""

from __future__ import annotations

import numpy as np

from simserve.hardware import Curves, HardwareProfile, PrefillCurves
from simserve.latency.attention_shape import AttentionShape
from simserve.latency.lines import Floats, Lines, LinesByCount
from simserve.models import Attention

USUAL_TILE_ROWS = 64


class PrefillAttention:
    """Seconds over the tokens already in the cache, by the tokens of the chunk; compiled when a length is first met."""

    def __init__(self, shape: AttentionShape, hardware: HardwareProfile, max_tokens: int) -> None:
        self._shape = shape
        self.lines = LinesByCount(self._new_lines)
        """Seconds over the tokens already in the cache, by the tokens of a chunk."""
        self.tile_rows = USUAL_TILE_ROWS
        self.launch_s = 0.0
        self._chunks: Curves | None = None
        self._context_efficiency = hardware.default_efficiency.attention_prefill
        calibration = hardware.calibration
        curves = calibration.prefill_attention if calibration else None
        if isinstance(curves, PrefillCurves):
            self.launch_s, self.tile_rows = curves.launch_s, curves.tile_rows
            self._context_efficiency = curves.context_efficiency
            alone_s = prompts_s(curves, shape, 1, np.arange(max_tokens + 1.0))
            # A prompt of one token may be measured slower than one of two, as it is computed in another way.
            self._alone_s: list[float] = np.minimum.accumulate(alone_s[::-1])[::-1].tolist()
        else:
            self._alone_s = (_alone_bound_s(shape, np.arange(max_tokens + 1.0)) / self._context_efficiency).tolist()
        if calibration is not None and isinstance(calibration.chunk_attention, Curves):
            self._chunks = calibration.chunk_attention
            self._chunk_heads = calibration.chunk_heads
            self.launch_s = self._chunks.launch_s

    def context_s(self, tiles: int) -> float:
        """Seconds that each cached token costs ``tiles`` tiles of queries in every head, in whole waves."""
        blocks = tiles * self._shape.attention.num_heads
        waves = -(-blocks // self._shape.compute_units)
        rows = waves * self._shape.compute_units * self.tile_rows / self._shape.attention.num_heads
        computed_s = rows * self._shape.pair_s / self._context_efficiency
        return max(computed_s, self._context_bytes_s)

    def _new_lines(self, tokens: int) -> Lines:
        if self._chunks is not None:
            return self._from_table(self._chunks, tokens)
        beyond = self.context_s(-(-tokens // self.tile_rows))
        return Lines(np.array([0.0]), np.array([self._alone_s[tokens]]), beyond)

    def _from_table(self, table: Curves, tokens: int) -> Lines:
        """A chunk of another number of heads fills the device as one of so many times the tokens would.

        It stands for the measured chunk with as many (query, head) rows whose mean context is the same.
        """
        contexts = np.array([float(key[0]) for key in table.row_numbers()])
        chunks = np.array(table.columns)
        alike = tokens * self._shape.attention.num_heads / self._chunk_heads
        wide = self._shape.attention.head_dim
        inside = float(np.clip(alike, chunks[0], chunks[-1]))
        pair_s = 4 * self._chunk_heads * wide / self._shape.flops_per_s
        bound_s = (chunks * contexts[:, None] + chunks * (chunks + 1) / 2) * pair_s
        nodes = (table.launch_s + bound_s) / np.array(list(table.rows.values()))
        measured = np.array([np.interp(inside, chunks, row) for row in nodes])
        shifted = contexts + (inside - tokens) / 2
        seconds = np.interp(contexts, shifted, measured) * max(alike / inside, 1.0)
        pairs = tokens * contexts + tokens * (tokens + 1) / 2
        moved = tokens * self._shape.prefill_s_per_token + contexts * self._context_bytes_s
        least = table.launch_s + np.maximum(pairs * self._shape.pair_s, moved)
        slope = (seconds[-1] - seconds[-2]) / (contexts[-1] - contexts[-2])
        steepest = max(float(slope), tokens * self._shape.pair_s, self._context_bytes_s)
        return Lines(contexts, np.maximum(seconds, least), steepest)

    @property
    def pair_s(self) -> float:
        """Seconds that one (query token, key token) pair takes, all heads, over a long context."""
        return self._shape.pair_s / self._context_efficiency

    @property
    def _context_bytes_s(self) -> float:
        return self._shape.bytes_per_token / self._shape.bytes_per_s


def prompts_s(curves: PrefillCurves, shape: AttentionShape, sequences: int, tokens: Floats) -> Floats:
    """Seconds of ``sequences`` prompts of so many ``tokens`` each in one call, with nothing cached."""
    measured = np.array(curves.columns)
    efficiency = _row_for(curves, shape.attention, sequences)
    nodes = (curves.launch_s + _alone_bound_s(shape, measured) * sequences) / efficiency
    # Time grows with the pairs, so they are what it is straight over between two measured lengths.
    inside = np.interp(tokens * (tokens + 1), measured * (measured + 1), nodes)
    bound_s = _alone_bound_s(shape, tokens) * sequences
    beyond = (curves.launch_s + bound_s) / efficiency[-1]
    return np.maximum(np.where(tokens > measured[-1], np.maximum(beyond, nodes[-1]), inside), bound_s)


def _alone_bound_s(shape: AttentionShape, tokens: Floats) -> Floats:
    return np.maximum(tokens * (tokens + 1) / 2 * shape.pair_s, tokens * shape.prefill_s_per_token)


def _row_for(curves: PrefillCurves, attention: Attention, sequences: int) -> Floats:
    """The row measured with the nearest number of sequences, then of query heads, then of KV heads."""

    def apart(key: tuple[int, ...]) -> list[float]:
        asked = (sequences, attention.num_heads, attention.num_kv_heads)
        measured = (key[2], key[0], key[1])
        return [abs(float(np.log2(have / want))) for have, want in zip(measured, asked, strict=True)]

    keys = curves.row_numbers()
    nearest = min(range(len(keys)), key=lambda index: apart(keys[index]))
    return np.array(list(curves.rows.values())[nearest])
