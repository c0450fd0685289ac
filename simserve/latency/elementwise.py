"""Small operators between the large ones: norms, rotary embedding, activation, token embedding, sampling.

They move little and find most of it in the last cache, so they are held as measured bytes per second over bytes.
"""

from __future__ import annotations

import numpy as np

from simserve.hardware import HardwareProfile, Rates
from simserve.latency.lines import Floats
from simserve.models import ModelSpec, dtype_bytes_of

LOGIT_BYTES = 4
UNMEASURED_LAUNCH_S, SAMPLER_LAUNCH_S = 3e-6, 25e-6
"""Of one small operator where none was measured, and of the sampler; RTX 4090 and RTX PRO 6000 take 2-3 and 25 µs."""
SAMPLER_PASSES = 2.3
"""How often those two read the logits from memory, as they are more than their last cache holds."""


class Elementwise:
    """Seconds of a model's small operators on one device."""

    def __init__(self, model: ModelSpec, hardware: HardwareProfile, tensor_parallel_size: int) -> None:
        self._model = model
        self._tp = tensor_parallel_size
        self._bandwidth = hardware.bandwidth_bytes_per_s
        self._efficiency = hardware.default_efficiency.gemm_memory
        self._activation_bytes = dtype_bytes_of(hardware.calibration.dtype) if hardware.calibration else 2.0
        rates = hardware.calibration.elementwise if hardware.calibration else None
        self._rates = rates if isinstance(rates, Rates) else None

    def body_s(self, tokens: Floats) -> Floats:
        """Seconds of everything but the lm_head's and sampler's share, for each of ``tokens``; none for none."""
        model, attention = self._model, self._model.attention(self._tp)
        width = model.intermediate_size // self._tp * (3 if model.gated_mlp else 2)
        rotated = 2 * (attention.num_heads + attention.num_kv_heads) * model.head_dim
        # A norm reads and writes both its input and the residual; rotary embedding and QK norm read and write Q and K.
        seconds = (2 * model.num_layers + 1) * self._operator_s("norm", tokens * 4 * model.hidden_size)
        seconds += model.num_layers * self._operator_s("activation", tokens * width)
        seconds += self._operator_s("embedding", tokens * 2 * model.hidden_size)
        passes = model.num_layers * ((0 if model.learned_positions else 1) + (1 if model.qk_norm else 0))
        seconds += passes * self._operator_s("rope", tokens * rotated)
        return np.where(tokens > 0, seconds, 0.0)

    def sampler_s(self, rows: Floats) -> Floats:
        """Seconds from logits to tokens for each of ``rows`` sequences; none for none."""
        elements = rows * self._model.vocab_size * LOGIT_BYTES / self._activation_bytes
        return np.where(rows > 0, self._operator_s("sampler", elements), 0.0)

    def _operator_s(self, name: str, elements: Floats) -> Floats:
        moved = elements * self._activation_bytes
        if self._rates is None or name not in self._rates.rows:
            launch_s, passes = (SAMPLER_LAUNCH_S, SAMPLER_PASSES) if name == "sampler" else (UNMEASURED_LAUNCH_S, 1.0)
            return launch_s + passes * moved / (self._bandwidth * self._efficiency)
        measured = np.array(self._rates.columns)
        nodes = np.maximum.accumulate(measured / (np.array(self._rates.rows[name]) * self._bandwidth))
        return np.where(moved > measured[-1], nodes[-1] * moved / measured[-1], np.interp(moved, measured, nodes))
