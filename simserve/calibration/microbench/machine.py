"""The machine that is measured: what it calls itself, how much it holds, and what computes on it."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from simserve.errors import HardwareError

if TYPE_CHECKING:
    import torch

MIB = 2**20
LEAST_COLD_BYTES, MOST_COLD_BYTES = 256 * MIB, 1024 * MIB
"""Operands of so much in all are gone through in turn, so that none is still in the last cache when it comes again."""
MOST_MEMORY_SHARE = 0.2
CPU_INFO, CACHES = Path("/proc/cpuinfo"), Path("/sys/devices/system/cpu/cpu0/cache")


@dataclass(frozen=True)
class Machine:
    """One device of this machine, set up to be measured; ``threads`` are torch's on the host."""

    kind: Literal["cpu", "gpu"]
    name: str
    device: torch.device
    dtype_name: str
    dtype: torch.dtype
    threads: int
    memory_bytes: int
    cache_bytes: int
    """The last cache as the machine reports it; how much of it is ours shows in the measurements."""
    compute_units: int
    device_count: int
    versions: dict[str, str]

    @property
    def cold_bytes(self) -> int:
        """Bytes to go through so that nothing is found in the last cache."""
        wanted = min(max(2 * self.cache_bytes, LEAST_COLD_BYTES), MOST_COLD_BYTES)
        return min(wanted, int(self.memory_bytes * MOST_MEMORY_SHARE))


def this_machine(device: str, dtype: str, threads: int | None = None) -> Machine:
    """The ``device`` ("cpu" or "cuda") of this machine, with torch set to ``threads`` threads (all cores).

    Raises :class:`HardwareError` without torch, or if torch finds no such device.
    """
    require_torch()
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = cores if threads is None else threads
    if not 1 <= count <= cores:
        raise HardwareError(f"--threads {count} is not possible here: give 1 to {cores}, the cores of this machine")
    torch.set_num_threads(count)
    versions = {"torch": str(torch.__version__), "simserve": _own_version(), "python": platform.python_version()}
    torch_dtype: torch.dtype = getattr(torch, dtype)
    if device == "cpu":
        return Machine(
            "cpu", cpu_name(), torch.device("cpu"), dtype, torch_dtype, count, _memory_bytes(), cpu_cache_bytes(),
            count, 1, versions,
        )  # fmt: skip
    if not torch.cuda.is_available():
        raise HardwareError("torch finds no CUDA device here: leave --device out to calibrate the CPU")
    gpu = torch.cuda.get_device_properties(0)
    versions["cuda"] = str(torch.version.cuda)
    return Machine(
        "gpu", str(gpu.name), torch.device("cuda", 0), dtype, torch_dtype, count, int(gpu.total_memory),
        int(gpu.L2_cache_size), int(gpu.multi_processor_count), torch.cuda.device_count(), versions,
    )  # fmt: skip


def require_torch() -> None:
    """Raise :class:`HardwareError`, saying how to install it, where torch is missing."""
    try:
        import torch  # noqa: F401
    except ImportError:
        raise HardwareError("calibrating needs torch; install it with: pip install 'simserve[torch]'") from None


def cpu_name() -> str:
    """As the processor calls itself."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", CPU_INFO.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def cpu_cache_bytes() -> int:
    """The largest cache that Linux lists for the first core; 0 where it lists none."""
    sizes = [0]
    for file in CACHES.glob("index*/size"):
        found = re.fullmatch(r"(\d+)([KMG])", file.read_text(encoding="ascii").strip())
        if found:
            sizes.append(int(found[1]) * {"K": 2**10, "M": 2**20, "G": 2**30}[found[2]])
    return max(sizes)


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _own_version() -> str:
    from simserve import __version__

    return __version__
