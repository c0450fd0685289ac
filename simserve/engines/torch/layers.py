"""What a transformer's layer is made of besides attention: norms, MLPs, experts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F

from simserve.engines.torch.linear import Linear


class Module(Protocol):
    """A function of activations [tokens, hidden]."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor: ...


class RmsNorm:
    """Root-mean-square normalisation over the last axis."""

    def __init__(self, weight: torch.Tensor, eps: float) -> None:
        self._weight, self._eps, self._shape = weight, eps, (weight.shape[-1],)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, self._shape, self._weight, self._eps)


class HeadNorm:
    """RMSNorm of each head of Q and K, with a weight for each of the two (Qwen3); in place."""

    def __init__(self, q_weight: torch.Tensor, k_weight: torch.Tensor, heads: int, kv_heads: int, eps: float) -> None:
        self._weight = torch.stack([q_weight] * heads + [k_weight] * kv_heads)
        self._eps = eps

    def apply_(self, qk: torch.Tensor) -> None:
        """``qk`` is [tokens, heads + kv_heads, head_dim]."""
        qk.copy_(F.rms_norm(qk, (qk.shape[-1],), None, self._eps) * self._weight)


class LayerNorm:
    """Layer normalisation with weight and bias (OPT)."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, eps: float) -> None:
        self._weight, self._bias, self._eps, self._shape = weight, bias, eps, (weight.shape[-1],)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, self._shape, self._weight, self._bias, self._eps)


ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"silu": F.silu, "relu": F.relu, "gelu": F.gelu}


class Mlp:
    """down(activation(up(x)))."""

    def __init__(self, up: Linear, down: Linear, activation: str) -> None:
        self._up, self._down, self._activation = up, down, ACTIVATIONS[activation]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self._down(self._activation(self._up(x)))


class GatedMlp:
    """down(activation(gate(x)) * up(x)), gate and up in one product."""

    def __init__(self, gate_up: Linear, down: Linear, activation: str) -> None:
        self._gate_up, self._down, self._activation = gate_up, down, ACTIVATIONS[activation]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = self._gate_up(x).chunk(2, dim=-1)
        return self._down(self._activation(gate).mul_(up))


class Experts:
    """A mixture of experts: each token goes through the ``per_token`` that the router likes best.

    ``shared`` is the expert that every token passes as well, weighted by the sigmoid of ``shared_gate`` (Qwen2-MoE).
    """

    def __init__(
        self,
        router: torch.Tensor,
        experts: list[GatedMlp],
        per_token: int,
        *,
        normalise: bool,
        shared: GatedMlp | None = None,
        shared_gate: torch.Tensor | None = None,
    ) -> None:
        self._router, self._experts, self._per_token, self._normalise = router, experts, per_token, normalise
        self._shared, self._shared_gate = shared, shared_gate

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        shares, chosen = F.linear(x, self._router).float().softmax(dim=-1).topk(self._per_token, dim=-1)
        if self._normalise:
            shares = shares / shares.sum(dim=-1, keepdim=True)
        # Each expert works on its tokens in one product: sort the (token, expert) pairs by expert.
        order = chosen.flatten().argsort(stable=True)
        counts = chosen.flatten().bincount(minlength=len(self._experts)).tolist()
        rows, weights = order // self._per_token, shares.flatten()[order, None].to(x.dtype)
        total = torch.zeros_like(x)
        at = 0
        for expert, count in zip(self._experts, counts, strict=True):
            if count:
                here = rows[at : at + count]
                total.index_add_(0, here, expert(x[here]).mul_(weights[at : at + count]))
                at += count
        if self._shared is not None and self._shared_gate is not None:
            total += torch.sigmoid(F.linear(x, self._shared_gate)) * self._shared(x)
        return total
