"""ModelSpec: the shapes of one model, and what follows from them: parameters, bytes, KV cache and operators."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from simserve.errors import ModelError
from simserve.models.operators import Attention, Gemm
from simserve.models.quantization import Quantization

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "fp8": 1, "int8": 1}


def dtype_bytes_of(dtype: str) -> int:
    """Bytes of one element of ``dtype``; raises :class:`ModelError` for a name that is not in ``DTYPE_BYTES``."""
    try:
        return DTYPE_BYTES[dtype]
    except KeyError:
        raise ModelError(f"dtype '{dtype}' is not known; choose one of {', '.join(DTYPE_BYTES)}") from None


@dataclass(frozen=True)
class MoeSpec:
    """The mixture of experts in a model's sparse layers; the other layers are dense."""

    num_experts: int
    experts_per_token: int
    expert_intermediate_size: int
    sparse_layers: tuple[int, ...]
    """Indices, from 0, of the layers that have experts."""
    shared_expert_intermediate_size: int = 0
    """Width of the expert that every token passes (Qwen2-MoE), 0 where there is none."""


@dataclass(frozen=True)
class ModelSpec:
    """One decoder-only transformer. Sizes are elements, ``max_model_len`` tokens; see ``load_model``."""

    name: str
    architecture: str
    dtype: str
    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_model_len: int
    tie_word_embeddings: bool
    embedding_size: int
    """Width of the token embedding: hidden_size, but for OPT-350m, which projects in and out."""
    gated_mlp: bool = True
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    """RMSNorm over each head of Q and K (Qwen3)."""
    learned_positions: int = 0
    """Rows of a learned position table (OPT), 0 for rotary positions."""
    norm: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    final_norm: bool = True
    moe: MoeSpec | None = None
    quantization: Quantization | None = None
    """How the checkpoint stores the layers' matrices; None: in ``dtype``, as everything else."""
    path: Path | None = None
    """The folder of the config.json, where a tokenizer.json may lie too."""

    @property
    def dtype_bytes(self) -> int:
        """Bytes of one parameter in the dtype the model was published in."""
        return dtype_bytes_of(self.dtype)

    @property
    def num_parameters(self) -> int:
        """Exact number of distinct parameters: a tied lm_head is counted once, as the embedding."""
        return self._parameters(tensor_parallel_size=1)

    @property
    def active_parameters(self) -> int:
        """Parameters that one token uses: all but those of the experts it is not routed to."""
        if self.moe is None:
            return self.num_parameters
        idle_experts = self.moe.num_experts - self.moe.experts_per_token
        per_expert = sum(gemm.parameters * gemm.count for gemm in self.gemms() if gemm.kind == "expert")
        return self.num_parameters - idle_experts * per_expert

    @property
    def weight_bytes(self) -> int:
        """Bytes of the whole model's weights as they were published."""
        return self.weight_bytes_for(quantization=self.quantization)

    def weight_bytes_for(
        self, dtype: str | None = None, tensor_parallel_size: int = 1, quantization: Quantization | None = None
    ) -> int:
        """Bytes of weights that ONE of ``tensor_parallel_size`` devices holds; norms and the router are on each.

        All are in ``dtype`` (the model's own) but for the layers' matrices where there is a ``quantization``.
        """
        parameter_bytes = dtype_bytes_of(dtype or self.dtype)
        total = self._parameters(tensor_parallel_size) * parameter_bytes
        if quantization is None:
            return total
        quantised = sum(
            gemm.weights * gemm.count * self._copies(gemm)
            for gemm in self.gemms(tensor_parallel_size)
            if gemm.quantisable
        )
        return int(total - quantised * (parameter_bytes - quantization.bytes_per_weight))

    def kv_bytes_per_token(self, dtype: str | None = None, tensor_parallel_size: int = 1) -> int:
        """Bytes of K and V for one token, all layers, on one device: 2·layers·kv_heads·head_dim·bytes."""
        kv_heads = self.attention(tensor_parallel_size).num_kv_heads
        return 2 * self.num_layers * kv_heads * self.head_dim * dtype_bytes_of(dtype or self.dtype)

    def gemms(self, tensor_parallel_size: int = 1) -> tuple[Gemm, ...]:
        """Every matrix product of a step in order of execution, with the shapes ONE device computes.

        Raises :class:`ModelError` where the heads or an MLP cannot be divided evenly among the devices.
        """
        vocab_per_device = -(-self.vocab_size // tensor_parallel_size)
        project = self.embedding_size != self.hidden_size
        gemms = [
            *([Gemm("project_in", self.hidden_size, self.embedding_size, 1, "none")] if project else []),
            *self._attention_gemms(tensor_parallel_size),
            *self._dense_mlp_gemms(tensor_parallel_size),
            *self._expert_gemms(tensor_parallel_size),
            *([Gemm("project_out", self.embedding_size, self.hidden_size, 1, "none")] if project else []),
            Gemm("lm_head", vocab_per_device, self.embedding_size, 1, "column", "head"),
        ]
        return tuple(gemms)

    def attention(self, tensor_parallel_size: int = 1) -> Attention:
        """The attention of one layer on ONE device; with fewer KV heads than devices, each holds a copy of one."""
        heads = self._share(self.num_heads, "attention heads", tensor_parallel_size)
        if tensor_parallel_size > self.num_kv_heads and tensor_parallel_size % self.num_kv_heads == 0:
            return Attention(heads, 1, self.head_dim)
        return Attention(heads, self._share(self.num_kv_heads, "KV heads", tensor_parallel_size), self.head_dim)

    def attention_decode_flops(self, context_tokens: int) -> int:
        """FLOPs of decode attention in all layers, whole model; see :class:`Attention` for the formula."""
        return self.num_layers * self.attention().decode_flops(context_tokens)

    def attention_decode_bytes(self, context_tokens: int, dtype_bytes: float) -> float:
        """Bytes of KV cache that decode attention reads in all layers, whole model."""
        return self.num_layers * self.attention().decode_bytes(context_tokens, dtype_bytes)

    def attention_prefill_flops(self, chunk_tokens: int, context_tokens: int) -> int:
        """FLOPs of prefill attention in all layers, whole model."""
        return self.num_layers * self.attention().prefill_flops(chunk_tokens, context_tokens)

    def attention_prefill_bytes(self, chunk_tokens: int, context_tokens: int, dtype_bytes: float) -> float:
        """Bytes that prefill attention moves in all layers, whole model."""
        return self.num_layers * self.attention().prefill_bytes(chunk_tokens, context_tokens, dtype_bytes)

    def _attention_gemms(self, tensor_parallel_size: int) -> list[Gemm]:
        local = self.attention(tensor_parallel_size)
        qkv = (local.num_heads + 2 * local.num_kv_heads) * self.head_dim
        values = local.num_heads * self.head_dim
        return [
            Gemm("qkv", qkv, self.hidden_size, self.num_layers, "column", bias=self.qkv_bias),
            Gemm("attn_out", self.hidden_size, values, self.num_layers, "row", bias=self.output_bias),
        ]

    def _dense_mlp_gemms(self, tensor_parallel_size: int) -> list[Gemm]:
        layers = self.num_layers - (len(self.moe.sparse_layers) if self.moe else 0)
        if layers == 0:
            return []
        width = self._share(self.intermediate_size, "MLP columns", tensor_parallel_size)
        up = 2 * width if self.gated_mlp else width
        return [
            Gemm("gate_up", up, self.hidden_size, layers, "column", bias=self.mlp_bias),
            Gemm("down", self.hidden_size, width, layers, "row", bias=self.mlp_bias),
        ]

    def _expert_gemms(self, tensor_parallel_size: int) -> list[Gemm]:
        if self.moe is None or not self.moe.sparse_layers:
            return []
        layers, hidden = len(self.moe.sparse_layers), self.hidden_size
        width = self._share(self.moe.expert_intermediate_size, "expert columns", tensor_parallel_size)
        gemms = [
            Gemm("router", self.moe.num_experts, hidden, layers, "none"),
            Gemm("expert_gate_up", 2 * width, hidden, layers, "column", "expert"),
            Gemm("expert_down", hidden, width, layers, "row", "expert"),
        ]
        if self.moe.shared_expert_intermediate_size:
            shared = self._share(
                self.moe.shared_expert_intermediate_size, "shared expert columns", tensor_parallel_size
            )
            gemms += [
                Gemm("shared_expert_gate", 1, hidden, layers, "none"),
                Gemm("shared_gate_up", 2 * shared, hidden, layers, "column"),
                Gemm("shared_down", hidden, shared, layers, "row"),
            ]
        return gemms

    def _parameters(self, tensor_parallel_size: int) -> int:
        vocab_per_device = -(-self.vocab_size // tensor_parallel_size)
        in_gemms = sum(
            gemm.parameters * gemm.count * self._copies(gemm)
            for gemm in self.gemms(tensor_parallel_size)
            if not (gemm.kind == "head" and self.tie_word_embeddings)
        )
        tables = vocab_per_device * self.embedding_size + self.learned_positions * self.hidden_size
        return in_gemms + tables + self._norm_parameters()

    def _copies(self, gemm: Gemm) -> int:
        return self.moe.num_experts if self.moe and gemm.kind == "expert" else 1

    def _norm_parameters(self) -> int:
        per_norm = self.hidden_size * (2 if self.norm == "layernorm" else 1)
        qk = 2 * self.head_dim if self.qk_norm else 0
        return self.num_layers * (2 * per_norm + qk) + (per_norm if self.final_norm else 0)

    def _share(self, size: int, what: str, tensor_parallel_size: int) -> int:
        if size % tensor_parallel_size:
            raise ModelError(
                f"{self.name} cannot be split over {tensor_parallel_size} devices: its {size} {what} "
                f"cannot be divided evenly; choose another tensor-parallel size"
            )
        return size // tensor_parallel_size
