"""What LoRA adapters cost a step: a thin product into the rank and one out of it, beside each of the layers' own.

vLLM's kernels (shrink and expand, after Punica's SGMV, Chen et al., MLSys 2024) read the matrices of each adapter in
the batch once, at the rank that slots are made for, and the rows of all requests that have one. The rows in between
are in float32. Projections that are computed as one matrix are one kernel each way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simserve.hardware import Curves, HardwareProfile
from simserve.latency.host import HostCosts
from simserve.latency.lines import Floats
from simserve.latency.step_timer import StepTimer, StepWork
from simserve.models import Gemm, ModelSpec, dtype_bytes_of

KERNEL_S = 3e-6
"""What a kernel takes at least where the profile measured no matrix product: 2.4-3.2 us on A100, L40S and H100."""

BETWEEN_BYTES = 4
"""Of a number between shrink and expand."""

ADAPTERS = 3.0
"""Relative half-width of the time of adapters' products: up to four times as long. Nothing here was calibrated. One
rank-64 adapter made 96 answers of Llama-2-7B on an A100 take 35 s instead of 28 s (github.com/vllm-project/vllm, issue
10062, kernels of 2024), four times what this adds. TPU kernels of 2025 lose 8 to 24 % (pull request 15655)."""

WORDS = f"adapters' products, never measured, up to {1 + ADAPTERS:.0f} times as long"


@dataclass(frozen=True)
class _Projection:
    """``slices`` matrices A of k x rank and as many B, n columns in all, in ``layers`` layers."""

    n: int
    k: int
    slices: int
    layers: int

    def elements(self, rank: int) -> tuple[int, int]:
        """Of A and of B, one layer."""
        return self.slices * rank * self.k, rank * self.n


class AdapterProducts:
    """Adapters of ``rank`` on one of ``tensor_parallel_size`` devices.

    As in vLLM by default, A of projections that are split by columns is whole on each device, and so is B of those
    that are split by rows. ``slowness`` multiplies times.
    """

    def __init__(
        self,
        model: ModelSpec,
        hardware: HardwareProfile,
        *,
        dtype: str,
        tensor_parallel_size: int,
        rank: int,
        slowness: float = 1.0,
    ) -> None:
        self._projections = [
            _projection(model, gemm) for gemm in model.gemms(tensor_parallel_size) if _is_adapted(gemm)
        ]
        self._rank = rank
        self._element_bytes = dtype_bytes_of(dtype)
        gemm_curves = hardware.calibration and hardware.calibration.gemm
        self._kernel_s = gemm_curves.launch_s if isinstance(gemm_curves, Curves) else KERNEL_S
        efficiency = hardware.default_efficiency
        self._flops_per_s = hardware.peak_flops_for(dtype) * efficiency.gemm_compute
        self._bytes_per_s = hardware.bandwidth_bytes_per_s * efficiency.gemm_memory
        self._slowness = slowness

    @property
    def slot_bytes(self) -> int:
        """What one adapter takes on the device."""
        each = (sum(one.elements(self._rank)) * one.layers for one in self._projections)
        return int(sum(each) * self._element_bytes)

    @property
    def matrices(self) -> int:
        """That are copied one by one when an adapter comes."""
        return sum(2 * one.slices * one.layers for one in self._projections)

    def seconds(self, tokens: int, adapters: int) -> float:
        """Device seconds of a step with ``tokens`` rows of requests that have one of ``adapters`` adapters."""
        if not adapters:
            return 0.0
        total_s = 0.0
        for one in self._projections:
            between = tokens * one.slices * self._rank * BETWEEN_BYTES
            into, out_of = one.elements(self._rank)
            shrink_s = self._kernel(tokens, adapters, into, tokens * one.k * self._element_bytes + between)
            expand_s = self._kernel(tokens, adapters, out_of, between + 2 * tokens * one.n * self._element_bytes)
            total_s += one.layers * (shrink_s + expand_s)
        return total_s * self._slowness

    def _kernel(self, tokens: int, adapters: int, weights: int, moved_bytes: float) -> float:
        flops_s = 2 * tokens * weights / self._flops_per_s
        bytes_s = (adapters * weights * self._element_bytes + moved_bytes) / self._bytes_per_s
        return self._kernel_s + max(flops_s, bytes_s)


class AdapterStepTimer(StepTimer):
    """Steps of ``device``, which has no host, with what adapters add to each.

    Before a step is asked for, :meth:`expect` says what it has to do with adapters; it holds until it is called again.
    """

    def __init__(self, device: StepTimer, host: HostCosts, products: AdapterProducts) -> None:
        self._device = device
        self._host = host
        self._products = products
        self._added_s = self._wait_s = 0.0

    def expect(self, tokens: int, adapters: int, wait_s: float = 0.0) -> None:
        """Steps with so many ``tokens`` of requests with ``adapters`` adapters, which begin after ``wait_s``."""
        self._added_s = self._products.seconds(tokens, adapters)
        self._wait_s = wait_s

    def step_s(
        self, decodes: int, decode_context_tokens: int, chunks: Sequence[tuple[int, int]], sampled: int
    ) -> float:
        """See :meth:`StepTimer.step_s`."""
        device_s = self._device.step_s(decodes, decode_context_tokens, chunks, sampled) + self._added_s
        return self._wait_s + self._host.seconds(device_s, decodes + len(chunks))

    def decode_steps_s(self, decodes: int, decode_context_tokens: int, steps: int) -> Floats | list[float]:
        """See :meth:`StepTimer.decode_steps_s`; nobody waits before these."""
        device_s = self._device.decode_steps_s(decodes, decode_context_tokens, steps)
        if isinstance(device_s, list):
            return self._host.few_seconds([each_s + self._added_s for each_s in device_s], decodes)
        return self._host.all_seconds(np.add(device_s, self._added_s), decodes)

    def total_work(self, *runs: Floats) -> StepWork:
        """See :meth:`StepTimer.total_work`: the model's own work, without adapters'."""
        return self._device.total_work(*runs)


def _is_adapted(gemm: Gemm) -> bool:
    """Whether adapters change it: the projections of the layers, and not the ends of the model."""
    return gemm.kind == "dense" and gemm.parallel != "none"


def _projection(model: ModelSpec, gemm: Gemm) -> _Projection:
    slices = {"qkv": 3, "gate_up": 2 if model.gated_mlp else 1}.get(gemm.name, 1)
    return _Projection(gemm.n, gemm.k, slices, gemm.count)
