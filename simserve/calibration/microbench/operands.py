"""Operands that are never found in the last cache: a large pool of memory, of which each call takes another piece.

A benchmark that multiplies by the same weights again and again finds them in the cache and is twice too fast; an
engine meets each weight once a step.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from simserve.calibration.microbench.machine import Machine

if TYPE_CHECKING:
    import torch

SEED_ELEMENTS = 1 << 20


class Pool:
    """``num_bytes`` of random numbers on the machine's device, cut into pieces as asked."""

    def __init__(self, machine: Machine, num_bytes: int) -> None:
        import torch

        count = num_bytes // torch.empty(0, dtype=machine.dtype).element_size()
        self._flat = torch.empty(count, dtype=machine.dtype, device=machine.device)
        random = torch.Generator(device=machine.device).manual_seed(0)
        seed = torch.randn(min(SEED_ELEMENTS, count), generator=random, device=machine.device).to(machine.dtype)
        for start in range(0, count, len(seed)):  # drawing all of it would take longer than the measurements
            self._flat[start : start + len(seed)] = seed[: count - start]

    @property
    def nbytes(self) -> int:
        return self._flat.nbytes

    def read(self) -> torch.Tensor:
        """All of it, once; as float32, since narrower numbers are widened first, which is slower than reading them."""
        import torch

        return self._flat.view(torch.float32).sum()

    def holds(self, *shape: int) -> bool:
        """Whether two pieces of ``shape`` fit, so that there is another one to take."""
        return 2 * prod(shape) <= len(self._flat)

    def pieces(self, *shape: int, most_bytes: int | None = None) -> list[torch.Tensor]:
        """As many tensors of ``shape`` as there is room for, or as ``most_bytes`` suffice for; never fewer than two."""
        size = prod(shape)
        count = len(self._flat) // size
        if most_bytes is not None:
            count = min(count, max(most_bytes // (size * self._flat.itemsize), 2))
        return [self._flat[i * size : (i + 1) * size].view(shape) for i in range(count)]
