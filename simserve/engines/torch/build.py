"""Puts a model's tensors together: Q, K and V fused into one product, gate and up into another."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from simserve.engines.torch.details import Details, read_details
from simserve.engines.torch.layers import Experts, GatedMlp, HeadNorm, LayerNorm, Mlp, Module, RmsNorm
from simserve.engines.torch.linear import Linear
from simserve.engines.torch.memory import check_weights_fit, has_room_for_copies
from simserve.engines.torch.transformer import Layer, Transformer
from simserve.engines.torch.weights import FolderWeights, RandomWeights, Weights
from simserve.models import ModelSpec

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_transformer(
    spec: ModelSpec, device: torch.device, dtype: str, *, random_weights: bool = False, compiled: bool = False
) -> Transformer:
    """The model with the weights in the folder of ``spec``, or random ones if there is none or they are wanted.

    Raises :class:`simserve.errors.CapacityError` if it is too large, and what :func:`build_transformer` raises.
    """
    check_weights_fit(spec, dtype, device)
    weights: Weights
    if random_weights or spec.path is None:
        weights = RandomWeights(device, DTYPES[dtype])
    else:
        weights = FolderWeights(spec.path, device, DTYPES[dtype])
    keep_plain = has_room_for_copies(spec, dtype, device)
    return build_transformer(spec, weights, packed=not compiled, keep_plain=keep_plain)


def build_transformer(
    spec: ModelSpec, weights: Weights, *, packed: bool = True, keep_plain: bool = True
) -> Transformer:
    """The model ``spec`` with ``weights``; ``packed`` and ``keep_plain`` as for :class:`Linear`.

    Raises :class:`simserve.errors.ModelError` for a config or tensors that are not understood.
    """
    new_linear = partial(Linear, packed=packed, keep_plain=keep_plain)
    return _Builder(spec, read_details(spec), weights, new_linear).transformer()


@dataclass(frozen=True)
class _Names:
    """Where an architecture keeps what all of them have; layers' names are relative to the layer."""

    layers: str = "model.layers"
    embedding: str = "model.embed_tokens.weight"
    final_norm: str = "model.norm"
    attention_norm: str = "input_layernorm"
    output: str = "self_attn.o_proj"
    mlp_norm: str = "post_attention_layernorm"
    router: str = "mlp.gate.weight"
    experts: str = "mlp.experts"
    gate: str = "gate_proj"
    up: str = "up_proj"
    down: str = "down_proj"


_NAMES = {
    "OPTForCausalLM": _Names(
        layers="model.decoder.layers",
        embedding="model.decoder.embed_tokens.weight",
        final_norm="model.decoder.final_layer_norm",
        attention_norm="self_attn_layer_norm",
        output="self_attn.out_proj",
        mlp_norm="final_layer_norm",
    ),
    "MixtralForCausalLM": _Names(
        router="block_sparse_moe.gate.weight", experts="block_sparse_moe.experts", gate="w1", up="w3", down="w2"
    ),
}


class _Builder:
    def __init__(self, spec: ModelSpec, details: Details, weights: Weights, new_linear: partial[Linear]) -> None:
        self._spec, self._details, self._weights, self._new_linear = spec, details, weights, new_linear
        self._names = _NAMES.get(spec.architecture, _Names())

    def transformer(self) -> Transformer:
        spec, names = self._spec, self._names
        embedding = self._weights.get(names.embedding, spec.vocab_size, spec.embedding_size)
        projects = spec.embedding_size != spec.hidden_size
        return Transformer(
            spec,
            self._details,
            embedding=embedding,
            positions=self._position_table(),
            project_in=self._plain("model.decoder.project_in", spec.hidden_size, spec.embedding_size, projects),
            layers=[self._layer(index) for index in range(spec.num_layers)],
            final_norm=self._norm(names.final_norm) if spec.final_norm else None,
            project_out=self._plain("model.decoder.project_out", spec.embedding_size, spec.hidden_size, projects),
            head=self._head(embedding),
        )

    def _head(self, embedding: torch.Tensor) -> Linear:
        tied = self._spec.tie_word_embeddings
        weight = embedding if tied else self._weights.get("lm_head.weight", *embedding.shape)
        return self._new_linear(weight)

    def _position_table(self) -> torch.Tensor | None:
        rows = self._spec.learned_positions
        name = "model.decoder.embed_positions.weight"
        return self._weights.get(name, rows, self._spec.hidden_size) if rows else None

    def _layer(self, index: int) -> Layer:
        spec, names, at = self._spec, self._names, f"{self._names.layers}.{index}"
        heads, kv_heads = spec.num_heads * spec.head_dim, spec.num_kv_heads * spec.head_dim
        qkv = [
            (f"{at}.self_attn.{which}_proj", rows) for which, rows in (("q", heads), ("k", kv_heads), ("v", kv_heads))
        ]
        return Layer(
            self._norm(f"{at}.{names.attention_norm}"),
            self._linear(qkv, spec.hidden_size, spec.qkv_bias),
            self._head_norm(at) if spec.qk_norm else None,
            self._linear([(f"{at}.{names.output}", spec.hidden_size)], heads, spec.output_bias),
            self._norm(f"{at}.{names.mlp_norm}"),
            self._experts(at) if spec.moe and index in spec.moe.sparse_layers else self._mlp(at),
        )

    def _mlp(self, at: str) -> Module:
        spec, hidden, width = self._spec, self._spec.hidden_size, self._spec.intermediate_size
        if not spec.gated_mlp:
            up = self._linear([(f"{at}.fc1", width)], hidden, spec.mlp_bias)
            return Mlp(up, self._linear([(f"{at}.fc2", hidden)], width, spec.mlp_bias), self._details.activation)
        return self._gated(f"{at}.mlp", width, "gate_proj", "up_proj", "down_proj", bias=spec.mlp_bias)

    def _experts(self, at: str) -> Experts:
        moe, names, hidden = self._spec.moe, self._names, self._spec.hidden_size
        assert moe is not None
        shared = moe.shared_expert_intermediate_size
        return Experts(
            self._weights.get(f"{at}.{names.router}", moe.num_experts, hidden),
            [
                self._gated(
                    f"{at}.{names.experts}.{expert}", moe.expert_intermediate_size, names.gate, names.up, names.down
                )
                for expert in range(moe.num_experts)
            ],
            moe.experts_per_token,
            normalise=self._details.normalise_experts,
            shared=self._gated(f"{at}.mlp.shared_expert", shared, "gate_proj", "up_proj", "down_proj")
            if shared
            else None,
            shared_gate=self._weights.get(f"{at}.mlp.shared_expert_gate.weight", 1, hidden) if shared else None,
        )

    def _gated(self, at: str, width: int, gate: str, up: str, down: str, *, bias: bool = False) -> GatedMlp:
        hidden = self._spec.hidden_size
        gate_up = self._linear([(f"{at}.{gate}", width), (f"{at}.{up}", width)], hidden, bias)
        return GatedMlp(gate_up, self._linear([(f"{at}.{down}", hidden)], width, bias), self._details.activation)

    def _linear(self, parts: list[tuple[str, int]], columns: int, bias: bool) -> Linear:
        """The products ``parts`` (name, rows), which have the same input, as one."""
        weights = [self._weights.get(f"{name}.weight", rows, columns) for name, rows in parts]
        biases = [self._weights.get(f"{name}.bias", rows) for name, rows in parts] if bias else None
        return self._new_linear(_joined(weights), _joined(biases) if biases else None)

    def _plain(self, name: str, rows: int, columns: int, wanted: bool) -> Linear | None:
        return self._linear([(name, rows)], columns, bias=False) if wanted else None

    def _norm(self, name: str) -> Module:
        weight, eps = self._weights.get(f"{name}.weight", self._spec.hidden_size), self._details.norm_eps
        if self._spec.norm == "rmsnorm":
            return RmsNorm(weight, eps)
        return LayerNorm(weight, self._weights.get(f"{name}.bias", self._spec.hidden_size), eps)

    def _head_norm(self, at: str) -> HeadNorm:
        spec = self._spec
        q, k = (self._weights.get(f"{at}.self_attn.{which}_norm.weight", spec.head_dim) for which in "qk")
        return HeadNorm(q, k, spec.num_heads, spec.num_kv_heads, self._details.norm_eps)


def _joined(parts: list[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
