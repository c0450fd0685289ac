"""Measured points of one kind of operation: columns of equal length, times in seconds."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
AnyPoints = TypeVar("AnyPoints", bound="Points")


@dataclass(frozen=True)
class Points:
    """``seconds`` that each point took; subclasses add what was computed."""

    seconds: Floats

    def __len__(self) -> int:
        return len(self.seconds)

    def where(self: AnyPoints, mask: Mask) -> AnyPoints:
        """The points for which ``mask`` holds."""
        return type(self)(**{field.name: getattr(self, field.name)[mask] for field in fields(self)})

    def joined(self: AnyPoints, other: AnyPoints) -> AnyPoints:
        """These points, then ``other``'s."""
        names = [field.name for field in fields(self)]
        return type(self)(**{name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in names})


@dataclass(frozen=True)
class GemmPoints(Points):
    """C[m, n] = A[m, k] B[k, n]."""

    m: Floats
    n: Floats
    k: Floats


@dataclass(frozen=True)
class AttentionPoints(Points):
    """One layer's attention of ``sequences``: prompts of ``tokens``, or decodes on that much context."""

    heads: Floats
    kv_heads: Floats
    sequences: Floats
    tokens: Floats


@dataclass(frozen=True)
class MixedPoints(Points):
    """One attention call: a chunk on cached tokens, beside decodes of one context; either may be missing (0)."""

    chunk: Floats
    cached: Floats
    decodes: Floats
    context: Floats


@dataclass(frozen=True)
class AllReducePoints(Points):
    """One all-reduce of ``message_bytes`` among ``devices``."""

    devices: Floats
    message_bytes: Floats


@dataclass(frozen=True)
class ElementwisePoints(Points):
    """A small operator on ``tokens`` rows; ``name`` as in :class:`simserve.hardware.Rates`."""

    name: npt.NDArray[np.str_]
    moved_bytes: Floats
