"""Memory: how fast it is read and copied, and from which size on the last cache no longer helps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING

from simserve.calibration.microbench.bench import Bench, Pace, Progress
from simserve.calibration.microbench.machine import MIB, Machine
from simserve.calibration.microbench.operands import Pool

if TYPE_CHECKING:
    import torch

SIZES_MIB = (1, 4, 16, 64, 128, 256)
CACHED_SPEEDUP = 1.3
"""A buffer that is read so many times faster than memory is still in a cache."""
ROW_ELEMENTS = 4096


@dataclass(frozen=True)
class Bandwidth:
    """Bytes per second of memory, the best way found, and the bytes that a cache holds of what is read repeatedly."""

    bytes_per_s: float
    cache_bytes: int
    by_way: dict[str, float]


def measure_bandwidth(
    bench: Bench, machine: Machine, pool: Pool, pace: Pace, quick: bool, progress: Progress
) -> Bandwidth:
    """Read (sum), copy (read and write) and multiply a vector through memory; then read buffers of growing size."""
    import torch

    sizes = [size * MIB for size in (SIZES_MIB[:3] if quick else SIZES_MIB) if 2 * size * MIB <= machine.cold_bytes]
    width = torch.empty(0, dtype=machine.dtype).element_size()
    large = sizes[-1] // width // ROW_ELEMENTS
    pieces = pool.pieces(large, ROW_ELEMENTS)
    source, pairs = cycle(pieces), cycle(zip(pieces, pieces[1:] + pieces[:1], strict=True))
    vector = torch.randn(1, ROW_ELEMENTS, device=machine.device).to(machine.dtype)
    cases: dict[str | int, Callable[[], object]] = {
        "read": lambda: _read(next(source)),
        "copy": lambda: _copy(*next(pairs)),
        "multiply": lambda: torch.nn.functional.linear(vector, next(source)),
    }
    for size in sizes:
        cases[size] = partial(_read, pool.pieces(size // width)[0])
    timings = bench.measure(cases, pace, progress=progress)
    moved = {"read": sizes[-1], "copy": 2 * sizes[-1], "multiply": sizes[-1]}
    by_way = {way: num_bytes / timings[way].seconds for way, num_bytes in moved.items()}
    return Bandwidth(
        bytes_per_s=max(by_way.values()),
        cache_bytes=_cache_bytes({size: size / timings[size].seconds for size in sizes}, by_way["read"], machine),
        by_way=by_way,
    )


def _copy(source: torch.Tensor, target: torch.Tensor) -> None:
    target.copy_(source)


def _read(buffer: torch.Tensor) -> torch.Tensor:
    import torch

    return buffer.view(torch.float32).sum()  # narrower numbers are widened first, which is slower than reading them


def _cache_bytes(rates: dict[int, float], memory_rate: float, machine: Machine) -> int:
    """The largest buffer that was read from a cache; what the machine says if none was, or on a GPU."""
    cached = [size for size, rate in rates.items() if rate > CACHED_SPEEDUP * memory_rate]
    return machine.cache_bytes if machine.kind == "gpu" or not cached else max(cached)
