"""The seam between many pieces of work and what carries them out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

Item = TypeVar("Item")
Done = TypeVar("Done")


class Executor(Protocol):
    """Does pieces of work, in whatever order they come to an end."""

    def map(self, do: Callable[[Item], Done], items: Sequence[Item], batch: int = 1) -> Iterator[Done]:
        """``do(item)`` for each of ``items``, as soon as it is there; closing the iterator stops what is under way.

        ``do`` is a function of a module, or a :func:`functools.partial` of one, so that other processes find it by its
        name. At most ``batch`` items are handed over at a time: for short ones that costs less.
        """
        ...
