"""Which LoRA adapter each request asks for: drawn by popularity, or named by a trace."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from simserve.errors import WorkloadError
from simserve.workload.lengths import MOST_RANKS, draw_weighted
from simserve.workload.streams import random_streams

AdapterNumbers = npt.NDArray[np.int64]
"""Of each request, from 1 up; 0 for none."""

FAR = 64
"""Bits that units of prompts have."""


@dataclass(frozen=True)
class AdapterChoice:
    """A ``share`` of the requests has one of ``adapters`` adapters, the i-th as likely as i ** -``zipf``.

    So with ``zipf`` 0 all are equally popular. Raises :class:`WorkloadError` for values that cannot be.
    """

    adapters: int
    share: float = 1.0
    zipf: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.adapters <= MOST_RANKS:
            raise WorkloadError(f"--lora-adapters {self.adapters} cannot be drawn from; give 1 to {MOST_RANKS}")
        if not 0 <= self.share <= 1:
            raise WorkloadError(f"--lora-share {self.share:g} is no share of the requests; give 0 to 1")
        if not 0 <= self.zipf < math.inf:
            raise WorkloadError(f"--lora-zipf {self.zipf:g} is no exponent; give 0 or more")

    def draw(self, seed: int, count: int) -> AdapterNumbers:
        """For ``count`` requests, or sessions; the same seed gives the same."""
        rng = random_streams(seed).adapters
        numbers = np.arange(1, self.adapters + 1)
        chosen = draw_weighted(rng.random(count), numbers, numbers.astype(np.float64) ** -self.zipf)
        return np.where(rng.random(count) < self.share, chosen, 0)


def numbered(names: Sequence[Any]) -> AdapterNumbers:
    """Adapters by name, as numbers in the order of their first coming; what is empty, or None, is none."""
    numbers: dict[Any, int] = {}
    return np.fromiter(
        (numbers.setdefault(name, len(numbers) + 1) if name else 0 for name in names), np.int64, len(names)
    )


def units_of_adapter(units: Sequence[int], adapter: int) -> list[int]:
    """``units`` of a prompt as nobody with another adapter has them: their KV differs."""
    return [unit + (adapter << FAR) for unit in units]
