"""What an engine's host does around a step: planning, input preparation, launches, sampling; and its graphs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simserve.hardware import HardwareProfile

KERNEL_LAUNCH_S = 5e-6
"""Host time to launch one kernel outside a captured graph."""

KERNELS_PER_LAYER = 9
"""Launched outside graphs: 4 matrix products, attention, KV write, norms with residual, rotary, activation."""


@dataclass(frozen=True)
class HostCosts:
    """Host seconds per engine step, and more per running request.

    ``hidden`` as with asynchronous scheduling: the host prepares the next step while the device runs this one, so that
    only what the device does not cover is seen. ``launch_s`` is what each kernel outside a graph takes to launch.
    """

    step_s: float
    request_s: float
    hidden: bool = True
    launch_s: float = KERNEL_LAUNCH_S

    def times(self, factor: float) -> HostCosts:
        """The same on a host that takes ``factor`` times as long."""
        return HostCosts(self.step_s * factor, self.request_s * factor, self.hidden, self.launch_s * factor)

    def seconds(self, device_s: float, requests: int) -> float:
        """Seconds of a step that keeps the device busy for ``device_s``."""
        host_s = self.step_s + self.request_s * requests
        if not self.hidden:
            return device_s + host_s
        return device_s if device_s > host_s else host_s

    def few_seconds(self, device_s: list[float], requests: int) -> list[float]:
        """``seconds`` for each of ``device_s``, of which none is less than the one before."""
        host_s = self.step_s + self.request_s * requests
        if not self.hidden:
            return [each_s + host_s for each_s in device_s]
        return device_s if device_s[0] >= host_s else [max(each_s, host_s) for each_s in device_s]

    def all_seconds(self, device_s: npt.NDArray[np.float64], requests: int) -> npt.NDArray[np.float64]:
        """``seconds`` for each of ``device_s``."""
        host_s = self.step_s + self.request_s * requests
        return np.maximum(device_s, host_s) if self.hidden else device_s + host_s


VLLM_V1 = HostCosts(step_s=0.4e-3, request_s=8e-6)
"""The middle of published figures for vLLM's V1 engine: 126-541 µs a step, 4.4-12.7 µs a running request."""

VLLM_V0 = HostCosts(step_s=0.8e-3, request_s=42e-6, hidden=False)
"""vLLM of 2023-2024: a line through what Vidur measured beside A100s of scheduling, input preparation, sampling and
output processing."""


def launch_s_of(hardware: HardwareProfile, usual: HostCosts) -> float:
    """Host time to launch one kernel, measured where the machine itself was, else the ``usual``."""
    measured = hardware.calibration.host if hardware.calibration else None
    return measured.launch_s if measured else usual.launch_s


def graph_sizes(max_num_seqs: int, max_tokens: int) -> list[int]:
    """Numbers of tokens for which vLLM captures CUDA graphs: 1, 2, 4, every 8 below 256, every 16 to at most 512."""
    largest = min(2 * max_num_seqs, 512, max_tokens)
    return [size for size in (1, 2, 4, *range(8, 256, 8), *range(256, 513, 16)) if size <= largest]


def captured_graphs(max_num_seqs: int, max_tokens: int) -> int:
    """How many graphs vLLM captures: pieces between attention for every size, whole steps for decodes alone."""
    sizes = graph_sizes(max_num_seqs, max_tokens)
    return len(sizes) + sum(size <= max_num_seqs for size in sizes)


def padded_tokens(max_tokens: int, sizes: list[int]) -> npt.NDArray[np.intp]:
    """Rows that a step of 0 .. ``max_tokens`` tokens computes: up to the next graph size, if there is one."""
    tokens = np.arange(max_tokens + 1)
    if not sizes:
        return tokens
    index = np.searchsorted(sizes, tokens)
    fits = index < len(sizes)
    padded = np.where(fits, np.array(sizes)[np.minimum(index, len(sizes) - 1)], tokens)
    return np.where(tokens == 0, 0, padded)
