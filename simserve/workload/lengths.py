"""How long prompts and answers are: distributions of token counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from simserve.errors import WorkloadError


class LengthDistribution(Protocol):
    """Draws lengths in tokens; every one is at least 1."""

    def draw(self, rng: np.random.Generator, count: int) -> npt.NDArray[np.int64]:
        """``count`` lengths in tokens, taken from ``rng`` alone."""
        ...


@dataclass(frozen=True)
class ConstantLength:
    """Every request has the same ``tokens``. Raises :class:`WorkloadError` if that is less than 1."""

    tokens: int

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise WorkloadError(f"a length of {self.tokens} tokens is too short; give at least 1")

    def draw(self, rng: np.random.Generator, count: int) -> npt.NDArray[np.int64]:
        """``count`` times the constant; ``rng`` is left as it was."""
        return np.full(count, self.tokens, dtype=np.int64)
