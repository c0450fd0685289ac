"""One layer's attention on one device: the limits that neither decodes nor prefill chunks can beat."""

from __future__ import annotations

from dataclasses import dataclass

from simserve.models import Attention

QUERY_BYTES = 2
"""Of one element of queries and outputs, at least."""


@dataclass(frozen=True)
class AttentionShape:
    """Heads of one layer on one device, bytes of a KV element, and the device's limits."""

    attention: Attention
    kv_bytes_per_element: float
    flops_per_s: float
    bytes_per_s: float
    compute_units: int

    @property
    def bytes_per_token(self) -> float:
        """Bytes of K and V of one token in one layer."""
        return 2 * self.attention.num_kv_heads * self.attention.head_dim * self.kv_bytes_per_element

    @property
    def pair_s(self) -> float:
        """Seconds that one (query token, key token) pair takes at least, all heads."""
        return self.attention.decode_flops(1) / self.flops_per_s

    @property
    def decode_s_per_token(self) -> float:
        """Seconds that one token of context takes a decode at least."""
        return max(self.bytes_per_token / self.bytes_per_s, self.pair_s)

    @property
    def prefill_s_per_token(self) -> float:
        """Seconds that moving one token's queries, output, keys and values takes at least."""
        queries = 2 * self.attention.num_heads * self.attention.head_dim * QUERY_BYTES
        return (queries + self.bytes_per_token) / self.bytes_per_s
