"""Taking the time of a call: on the processor by wall clock beside the thread's own time, on a GPU by its events."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import torch

Call = Callable[[], object]

WAITED, WAITED_S = 1.03, 50e-6
"""A call that took more wall-clock time than so many times (and so much more than) its thread's had to wait."""


class Sample(NamedTuple):
    """Seconds of one call, or of each of several on average; ``quiet`` unless something is known to have disturbed."""

    seconds: float
    quiet: bool = True


class Stopwatch(Protocol):
    """Times calls on one kind of device."""

    def samples(self, call: Call, count: int, singly: bool) -> list[Sample]:
        """``call`` is made ``count`` times; one sample for each if ``singly``, else one for all."""
        ...

    def estimate_s(self, call: Call) -> float:
        """Seconds of one call, roughly; warms it up before."""
        ...


class CpuStopwatch:
    """Wall-clock time. With one thread, its own processor time tells whether it was kept waiting."""

    def __init__(self, threads: int) -> None:
        self._alone = threads == 1

    def estimate_s(self, call: Call) -> float:
        call()
        start_s = time.perf_counter()
        call()
        return time.perf_counter() - start_s

    def samples(self, call: Call, count: int, singly: bool) -> list[Sample]:
        return [self._sample(call, 1) for _ in range(count)] if singly else [self._sample(call, count)]

    def _sample(self, call: Call, count: int) -> Sample:
        own_s, start_s = time.thread_time(), time.perf_counter()
        for _ in range(count):
            call()
        wall_s, own_s = time.perf_counter() - start_s, time.thread_time() - own_s
        return Sample(wall_s / count, not self._alone or wall_s <= max(WAITED * own_s, own_s + WAITED_S))


class CudaStopwatch:
    """Time between two events on the GPU's current stream."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def estimate_s(self, call: Call) -> float:
        call()
        return self._elapsed_s(call, 1)

    def samples(self, call: Call, count: int, singly: bool) -> list[Sample]:
        each = 1 if singly else count
        return [Sample(self._elapsed_s(call, each) / each) for _ in range(count // each)]

    def _elapsed_s(self, call: Call, count: int) -> float:
        import torch

        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        torch.cuda.synchronize(self._device)
        start.record()
        for _ in range(count):
            call()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3


class WallStopwatch(CpuStopwatch):
    """Wall-clock time of calls that wait for their device themselves, such as whole engine steps."""

    def __init__(self) -> None:
        super().__init__(threads=2)
