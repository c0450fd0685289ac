"""What decodes cost that share their attention kernel with prefill chunks.

Kernels of the FlashAttention-2 family then no longer pack the query heads of a KV head together: each gets a tile
of its own, so that a decode costs as much as a prefill chunk of one tile, and reads the KV cache once per query
head unless the last cache helps. Kernels that pack them cost what decodes alone cost. Either way it is the chunk's
kernel, whose launch is counted there and not again.
"""

from __future__ import annotations

import numpy as np

from simserve.hardware import HardwareProfile, MixedCurves
from simserve.latency.attention_shape import AttentionShape
from simserve.latency.decode_attention import BatchCurves, DecodeAttention
from simserve.latency.lines import Floats, Lines, LinesByCount
from simserve.latency.prefill_attention import PrefillAttention


class MixedDecodeAttention:
    """Seconds over the summed context, by the number of decodes beside a chunk."""

    def __init__(
        self, decode: DecodeAttention, prefill: PrefillAttention, shape: AttentionShape, hardware: HardwareProfile
    ) -> None:
        self._decode, self._prefill, self._shape = decode, prefill, shape
        calibration = hardware.calibration
        self._packs = calibration is None or calibration.packs_query_heads
        self.lines = LinesByCount(self._new_lines)
        """Seconds over the summed context, by the number of sequences."""
        self._curves: BatchCurves | None = None
        self.idle_s = 0.0
        """Seconds that each decode adds for each tile of the longest chunk beyond the first."""
        if calibration is not None and isinstance(calibration.mixed_decode, MixedCurves):
            curves = calibration.mixed_decode
            self._units = shape.attention.num_kv_heads / curves.kv_heads
            batch = np.array([float(key[0]) for key in curves.row_numbers()])
            rows = np.array(list(curves.rows.values()))
            self._curves = BatchCurves(curves.launch_s, np.array(curves.columns), batch, rows)
            self.idle_s = curves.idle_block_s * shape.attention.num_heads

    def _new_lines(self, decodes: int) -> Lines:
        contexts = self._decode.contexts if self._packs or self._curves is None else self._curves.contexts
        totals = np.append(contexts, 2 * contexts[-1]) * decodes
        alone_s = self._decode.lines.of(decodes).at_all(totals) - self._decode.launch_s
        seconds = np.maximum(alone_s, self._shape.decode_s_per_token * totals)
        if not self._packs:
            seconds = np.maximum(seconds, self._unpacked(decodes, totals))
        return Lines(totals[:-1], seconds[:-1], float((seconds[-1] - seconds[-2]) / (totals[-1] - totals[-2])))

    def _unpacked(self, decodes: int, totals: Floats) -> Floats:
        if self._curves is None:
            return self._prefill.context_s(decodes) * totals / decodes
        unit_s = self._shape.decode_s_per_token / self._units
        seconds = self._curves.seconds(decodes * self._units, unit_s) - self._curves.launch_s
        return np.append(seconds, 2 * seconds[-1])
