"""The parts that a step's operators sum up to, one by one: what whole-step anchors are held against."""

from __future__ import annotations

from typing import TypeVar

from simserve.hardware import HardwareProfile
from simserve.latency.host import HostCosts
from simserve.latency.lines import Floats
from simserve.latency.step_timer import StepTimer
from simserve.models import ModelSpec

NO_HOST = HostCosts(0.0, 0.0, hidden=False)
Amount = TypeVar("Amount", float, Floats)


class OperatorSums(StepTimer):
    """Operators of ``model`` alone, on one device, in seconds of all layers: no host, no captured graphs."""

    def __init__(
        self, model: ModelSpec, hardware: HardwareProfile, *, dtype: str, max_tokens: int, max_seqs: int
    ) -> None:
        super().__init__(
            model,
            hardware,
            dtype=dtype,
            tensor_parallel_size=1,
            max_tokens=max_tokens,
            max_seqs=max_seqs,
            host=NO_HOST,
            graphs=False,
        )
        self.model = model
        self.layers_count = model.num_layers
        self._flops_per_s = hardware.peak_flops_for(dtype)
        self._bytes_per_s = hardware.bandwidth_bytes_per_s
        self._cache_bytes = float(hardware.l2_bytes or 0)

    def rows_s(self, tokens: int, sampled: int) -> float:
        """Everything but attention."""
        return self._body_s[tokens] + self._head_s[sampled]

    def decodes_s(self, decodes: int, contexts: Floats) -> Floats:
        """A step of ``decodes`` decodes alone, each on so many tokens of context."""
        attention_s = self._decode.lines.of(decodes).at_all((contexts + 1) * decodes)
        return self.rows_s(decodes, decodes) + self._layers_count * attention_s

    def chunk_s(self, tokens: int, cached: float) -> float:
        """Attention of a prefill chunk."""
        return self._layers_count * self._prefill.lines.of(tokens).at(cached)

    def beside_s(self, decodes: int, context_tokens: float) -> float:
        """Attention of decodes, which have so many tokens in the cache together, beside a prefill chunk."""
        return self._layers_count * self._mixed.lines.of(decodes).at(context_tokens + decodes)

    def least_s(self, tokens: int, sampled: int, pairs: Amount, kv_tokens: Amount) -> tuple[Amount, Amount]:
        """Seconds that a step takes at least for its FLOPs, and for its bytes.

        Only what does not fit the last cache must come from memory: a cache keeps weights from one step to the next.
        """
        flops = self._body_work[0][tokens] + self._head_work[0][sampled] + pairs * self._flops_per_pair
        moved = self._body_work[1][tokens] + self._head_work[1][sampled] + kv_tokens * self._kv_bytes
        return flops / self._flops_per_s, (moved - self._cache_bytes) / self._bytes_per_s
