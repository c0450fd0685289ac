"""Rotary positions (Su et al., RoFormer, 2021), and the ways in which models stretch them to longer contexts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from simserve.engines.torch.details import Details


class Rope:
    """Turns each pair (i, i + d/2) of a head by position x frequency i."""

    def __init__(self, details: Details, head_dim: int, device: torch.device, dtype: torch.dtype) -> None:
        exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
        plain = 1.0 / details.rope_theta**exponents
        kind = details.rope.get("rope_type", "default")
        self._scale = 1.0
        if kind == "linear":
            plain = plain / float(details.rope["factor"])
        elif kind == "llama3":
            plain = _llama3(plain, details.rope)
        elif kind == "yarn":
            plain, self._scale = _yarn(plain, details.rope, details.rope_theta, head_dim)
        self._frequencies = plain.to(device)
        self._dtype = dtype
        self._half = head_dim // 2

    def tables(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and signed sines for ``positions`` [tokens], each [tokens, 1, head_dim]; all layers share them."""
        angles = positions.float()[:, None] * self._frequencies
        cos, sin = angles.cos() * self._scale, angles.sin() * self._scale
        return (
            torch.cat((cos, cos), dim=-1)[:, None].to(self._dtype),
            torch.cat((-sin, sin), dim=-1)[:, None].to(self._dtype),
        )

    def turn_(self, x: torch.Tensor, tables: tuple[torch.Tensor, torch.Tensor]) -> None:
        """Rotate heads ``x`` [tokens, heads, head_dim] in place."""
        cos, sin = tables
        turned = x.roll(self._half, -1)
        x.mul_(cos).addcmul_(turned, sin)


def _llama3(frequencies: torch.Tensor, rope: Mapping[str, Any]) -> torch.Tensor:
    """Llama 3.1: slow turns are slowed down by a factor, fast ones are not, with a ramp in between."""
    factor, low, high = (float(rope[key]) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    turns = float(rope["original_max_position_embeddings"]) * frequencies / (2 * math.pi)
    kept = ((turns - low) / (high - low)).clamp(0.0, 1.0)
    return (1 - kept) * frequencies / factor + kept * frequencies


def _yarn(
    frequencies: torch.Tensor, rope: Mapping[str, Any], theta: float, head_dim: int
) -> tuple[torch.Tensor, float]:
    """YaRN (Peng et al., 2023), with the scale that it puts on queries and keys."""
    factor, context = float(rope["factor"]), float(rope["original_max_position_embeddings"])

    def dim_of(turns: float) -> float:
        return head_dim * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(theta))

    first, last = dim_of(float(rope.get("beta_fast") or 32)), dim_of(float(rope.get("beta_slow") or 1))
    if rope.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, head_dim - 1)
    ramp = (torch.arange(head_dim // 2, dtype=torch.float32) - first) / max(last - first, 0.001)
    stretched = ramp.clamp(0.0, 1.0)
    scale = rope.get("attention_factor")
    if scale is None:
        scale = _magnitude(factor, rope.get("mscale"), rope.get("mscale_all_dim"))
    return stretched * frequencies / factor + (1 - stretched) * frequencies, float(scale)


def _magnitude(factor: float, mscale: float | None, mscale_all_dim: float | None) -> float:
    def of(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0

    return of(mscale) / of(mscale_all_dim) if mscale and mscale_all_dim else of(1.0)
