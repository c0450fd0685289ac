"""The arithmetic of a transformer's operators: how many FLOPs they do and how many bytes they must move.

These are lower bounds that no implementation can beat (each operand moved once); how far above them a device stays
is the business of ``simserve.latency``. A multiply-add counts as two FLOPs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Parallel = Literal["column", "row", "none"]
GemmKind = Literal["dense", "expert", "head"]


@dataclass(frozen=True)
class Gemm:
    """One matrix product of a model, ``C[m, n] = A[m, k] B[k, n]``, where B holds the weights.

    ``count`` is how many layers run it in a step. ``parallel`` says how tensor parallelism splits the weights: by
    columns (n), by rows (k, followed by an all-reduce) or not at all.
    ``kind``: for "dense", m is the number of tokens in the step; for "head", the number of sampled tokens; for
    "expert", n and k are those of ONE expert and m the tokens routed to it; a layer holds ``num_experts`` of them.
    """

    name: str
    n: int
    k: int
    count: int
    parallel: Parallel
    kind: GemmKind = "dense"
    bias: bool = False

    @property
    def weights(self) -> int:
        """Elements of B, one layer: n·k."""
        return self.n * self.k

    @property
    def parameters(self) -> int:
        """Elements of B and of the bias, one layer."""
        return self.weights + (self.n if self.bias else 0)

    @property
    def quantisable(self) -> bool:
        """Whether quantisation touches it: lm_head, router and projections around the layers keep their precision."""
        return self.kind != "head" and self.parallel != "none"

    def flops(self, m: int) -> int:
        """FLOPs of one call on m rows: 2·m·n·k."""
        return 2 * m * self.n * self.k

    def bytes(self, m: int, dtype_bytes: float) -> float:
        """Bytes of one call on m rows: weights, input and output once each, (n·k + m·k + m·n)·dtype_bytes."""
        return (self.weights + m * self.k + m * self.n) * dtype_bytes


@dataclass(frozen=True)
class Attention:
    """Self-attention of ONE layer, on one device, with ``num_heads`` query heads sharing ``num_kv_heads`` KV heads."""

    num_heads: int
    num_kv_heads: int
    head_dim: int

    def decode_flops(self, context_tokens: int) -> int:
        """FLOPs of decoding over ``context_tokens``, summed over the batch: QKᵀ and PV are 2·heads·head_dim each."""
        return 4 * self.num_heads * self.head_dim * context_tokens

    def decode_bytes(self, context_tokens: int, dtype_bytes: float) -> float:
        """Bytes of K and V read for ``context_tokens`` (summed over the batch); queries and outputs are left out."""
        return 2 * self.num_kv_heads * self.head_dim * context_tokens * dtype_bytes

    def prefill_flops(self, chunk_tokens: int, context_tokens: int) -> int:
        """FLOPs of a causal prefill chunk behind ``context_tokens`` already in the cache.

        Token i of the chunk attends to context + i keys, so 4·heads·head_dim·(chunk·context + chunk·(chunk+1)/2).
        """
        pairs = chunk_tokens * context_tokens + chunk_tokens * (chunk_tokens + 1) // 2
        return 4 * self.num_heads * self.head_dim * pairs

    def prefill_bytes(self, chunk_tokens: int, context_tokens: int, dtype_bytes: float) -> float:
        """Bytes of a prefill chunk: its queries and outputs, and K and V of context and chunk, once each."""
        queries_and_outputs = 2 * self.num_heads * self.head_dim * chunk_tokens
        keys_and_values = 2 * self.num_kv_heads * self.head_dim * (context_tokens + chunk_tokens)
        return (queries_and_outputs + keys_and_values) * dtype_bytes
