"""How long the decodes' attention takes in one layer: a straight line over the summed context per number of decodes.

The efficiency of a batch depends on how many (sequence, KV head) pairs there are to spread over the device, and on the
context; a floor per sequence and how well a small batch fills the device are both in the measured curves.
"""

from __future__ import annotations

import numpy as np

from simserve.hardware import Curves, HardwareProfile
from simserve.latency.attention_shape import AttentionShape
from simserve.latency.lines import Floats, Lines, LinesByCount, weights_between
from simserve.models import Attention, dtype_bytes_of


class BatchCurves:
    """Efficiencies over (batch, context): ``batch`` counts whatever the measured rows were counted in."""

    def __init__(self, launch_s: float, contexts: Floats, batch: Floats, efficiency: Floats) -> None:
        self.launch_s = launch_s
        self.contexts = contexts
        self._batch = batch
        self._efficiency = efficiency
        self._nodes: tuple[float, Floats] | None = None

    def seconds(self, batch: float, unit_s: float) -> Floats:
        """Seconds at each context, where each of ``batch`` takes ``unit_s`` per token of context at least."""
        inside = float(np.clip(batch, self._batch[0], self._batch[-1]))
        low, high, share = weights_between(self._batch, inside)
        nodes = self._at_nodes(unit_s)
        efficiency = np.minimum(self._bound_s(inside, unit_s) / ((1 - share) * nodes[low] + share * nodes[high]), 1.0)
        seconds: Floats = self._bound_s(batch, unit_s) / efficiency
        return seconds

    def _at_nodes(self, unit_s: float) -> Floats:
        """Seconds at the measured batches. A device with another balance of launch and bandwidth may bend them down."""
        if self._nodes is None or self._nodes[0] != unit_s:
            bound_s = self.launch_s + self._batch[:, None] * unit_s * self.contexts
            seconds = np.maximum.accumulate(bound_s / self._efficiency, axis=0)
            self._nodes = unit_s, np.maximum.accumulate(seconds, axis=1)
        return self._nodes[1]

    def _bound_s(self, batch: float, unit_s: float) -> Floats:
        return self.launch_s + batch * unit_s * self.contexts


class DecodeAttention:
    """Seconds over the summed context, by the number of decodes; compiled when a number is first met."""

    def __init__(self, shape: AttentionShape, hardware: HardwareProfile) -> None:
        self._shape = shape
        self.lines = LinesByCount(self._new_lines)
        """Seconds over the summed context, by the number of sequences."""
        calibration = hardware.calibration
        if calibration is not None and isinstance(calibration.decode_attention, Curves):
            # A KV head of another width or number format counts as much as the bytes it holds.
            self._units = shape.bytes_per_token / (2 * calibration.head_dim * dtype_bytes_of(calibration.dtype))
            self._curves = _curves_for(calibration.decode_attention, shape.attention, self._units)
        else:
            self._units = 1.0
            assumed = np.array([[hardware.default_efficiency.attention_decode]])
            self._curves = BatchCurves(0.0, np.array([1.0]), np.array([1.0]), assumed)

    @property
    def contexts(self) -> Floats:
        """Tokens of context at which the lines have their points."""
        return self._curves.contexts

    @property
    def launch_s(self) -> float:
        return self._curves.launch_s

    def _new_lines(self, decodes: int) -> Lines:
        per_token_s = self._shape.decode_s_per_token
        seconds = self._curves.seconds(decodes * self._units, per_token_s / self._units)
        contexts = self.contexts * decodes
        efficiency = (self.launch_s + per_token_s * contexts[-1]) / seconds[-1]
        return Lines(contexts, seconds, per_token_s / min(float(efficiency), 1.0))


def _curves_for(curves: Curves, attention: Attention, units: float) -> BatchCurves:
    """The rows measured with the head configuration nearest to the asked one; MHA and GQA run different kernels."""
    asked = attention.num_heads // attention.num_kv_heads
    keyed = [(group, heads, batch) for group, heads, batch in curves.row_numbers()]

    def apart(configuration: tuple[int, int]) -> tuple[bool, float, float]:
        group, heads = configuration
        return (group == 1) != (asked == 1), abs(float(np.log2(heads / units))), abs(float(np.log2(group / asked)))

    nearest = min(sorted({key[:2] for key in keyed}), key=apart)
    rows = sorted((key[2], row) for key, row in zip(keyed, curves.rows.values(), strict=True) if key[:2] == nearest)
    batch = np.array([float(batch) for batch, _ in rows])
    return BatchCurves(curves.launch_s, np.array(curves.columns), batch, np.array([row for _, row in rows]))
