"""A decoder-only transformer, layer by layer; what attention does is the business of whoever runs it."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F

from simserve.engines.torch.details import Details
from simserve.engines.torch.layers import HeadNorm, Module
from simserve.engines.torch.linear import Linear
from simserve.engines.torch.rope import Rope
from simserve.models import ModelSpec

OPT_POSITION_OFFSET = 2
"""OPT's position table begins with two rows that no position has."""


class Attention(Protocol):
    """Attention of one step: knows which tokens belong to whom and where their past is."""

    def __call__(self, layer: int, qkv: torch.Tensor) -> torch.Tensor:
        """``qkv`` is [tokens, heads + 2 kv_heads, head_dim], positions in it already; gives [tokens, heads x head_dim].

        Also keeps K and V for later steps.
        """
        ...


class Layer:
    """One layer: attention and an MLP, each with a norm and a way around it."""

    def __init__(
        self,
        attention_norm: Module,
        qkv: Linear,
        head_norm: HeadNorm | None,
        output: Linear,
        mlp_norm: Module,
        mlp: Module,
    ) -> None:
        self.attention_norm, self.qkv, self.head_norm = attention_norm, qkv, head_norm
        self.output, self.mlp_norm, self.mlp = output, mlp_norm, mlp


class Transformer:
    """Weights and arithmetic of one model; see :func:`simserve.engines.torch.build.build_transformer`."""

    def __init__(
        self,
        spec: ModelSpec,
        details: Details,
        *,
        embedding: torch.Tensor,
        positions: torch.Tensor | None,
        project_in: Linear | None,
        layers: list[Layer],
        final_norm: Module | None,
        project_out: Linear | None,
        head: Linear,
    ) -> None:
        self.spec, self.details = spec, details
        self.device, self.dtype = embedding.device, embedding.dtype
        self._embedding, self._positions, self._project_in = embedding, positions, project_in
        self._layers, self._final_norm, self._project_out, self._head = layers, final_norm, project_out, head
        self._rope = None if spec.learned_positions else Rope(details, spec.head_dim, self.device, self.dtype)
        self._rotated_heads = spec.num_heads + spec.num_kv_heads
        self._qkv_heads = self._rotated_heads + spec.num_kv_heads

    def hidden(self, token_ids: torch.Tensor, positions: torch.Tensor, attention: Attention) -> torch.Tensor:
        """What the last layer says of each of ``token_ids`` [tokens] at ``positions``: [tokens, hidden]."""
        x = F.embedding(token_ids, self._embedding)
        if self._project_in is not None:
            x = self._project_in(x)
        if self._positions is not None:
            x = x + F.embedding(positions + OPT_POSITION_OFFSET, self._positions)
        tables = self._rope.tables(positions) if self._rope is not None else None
        run = self._run_layer if self.details.pre_norm else self._run_post_norm_layer
        for index, layer in enumerate(self._layers):
            x = run(index, layer, x, tables, attention)
        return x

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits over the vocabulary, in float32, for rows of :meth:`hidden`."""
        return self._head(self.normed(hidden)).float()

    def normed(self, hidden: torch.Tensor) -> torch.Tensor:
        """Rows of :meth:`hidden` as the head sees them."""
        if self._final_norm is not None:
            hidden = self._final_norm(hidden)
        return hidden if self._project_out is None else self._project_out(hidden)

    def _run_layer(
        self,
        index: int,
        layer: Layer,
        x: torch.Tensor,
        tables: tuple[torch.Tensor, torch.Tensor] | None,
        attention: Attention,
    ) -> torch.Tensor:
        x = x + self._attend(index, layer, layer.attention_norm(x), tables, attention)
        return x + layer.mlp(layer.mlp_norm(x))

    def _run_post_norm_layer(
        self,
        index: int,
        layer: Layer,
        x: torch.Tensor,
        tables: tuple[torch.Tensor, torch.Tensor] | None,
        attention: Attention,
    ) -> torch.Tensor:
        x = layer.attention_norm(x + self._attend(index, layer, x, tables, attention))
        return layer.mlp_norm(x + layer.mlp(x))

    def _attend(
        self,
        index: int,
        layer: Layer,
        x: torch.Tensor,
        tables: tuple[torch.Tensor, torch.Tensor] | None,
        attention: Attention,
    ) -> torch.Tensor:
        qkv = layer.qkv(x).view(x.shape[0], self._qkv_heads, self.spec.head_dim)
        qk = qkv[:, : self._rotated_heads]
        if layer.head_norm is not None:
            layer.head_norm.apply_(qk)
        if self._rope is not None and tables is not None:
            self._rope.turn_(qk, tables)
        return layer.output(attention(index, qkv))
