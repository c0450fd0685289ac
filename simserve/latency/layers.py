"""The matrix products of a model: seconds, FLOPs and bytes of a step's body and of its lm_head, by rows."""

from __future__ import annotations

import numpy as np

from simserve.hardware import Curves, HardwareProfile
from simserve.latency.gemm import AssumedGemms, GemmRoofline, MeasuredGemms
from simserve.latency.lines import Floats
from simserve.latency.number_formats import WeightFormat, plain_format
from simserve.models import Gemm, ModelSpec

GROUPED_MATRICES = 8
"""A grouped kernel fills the device as one product over so many matrices side by side would."""


class Layers:
    """All matrix products of ``model`` on one of ``tensor_parallel_size`` devices, the layers' with ``weights``."""

    def __init__(
        self, model: ModelSpec, hardware: HardwareProfile, dtype: str, weights: WeightFormat, tensor_parallel_size: int
    ) -> None:
        self.attention = model.attention(tensor_parallel_size)
        self._model = model
        gemms = model.gemms(tensor_parallel_size)
        self._body = [gemm for gemm in gemms if gemm.kind != "head"]
        self._head = [gemm for gemm in gemms if gemm.kind == "head"]
        self._plain = _Products(hardware, dtype, plain_format(dtype))
        self._quantised = self._plain if weights == plain_format(dtype) else _Products(hardware, dtype, weights)

    def body_s(self, tokens: Floats) -> Floats:
        """Seconds of all layers for each of ``tokens``."""
        return self._sum_s(self._body, tokens)

    def head_s(self, rows: Floats) -> Floats:
        """Seconds of the lm_head for each of ``rows`` sampled."""
        return self._sum_s(self._head, rows)

    def body_work(self, tokens: Floats) -> tuple[Floats, Floats]:
        """FLOPs and bytes of all layers for each of ``tokens``."""
        return self._sum_work(self._body, tokens)

    def head_work(self, rows: Floats) -> tuple[Floats, Floats]:
        """FLOPs and bytes of the lm_head for each of ``rows`` sampled."""
        return self._sum_work(self._head, rows)

    def _products(self, gemm: Gemm) -> _Products:
        return self._quantised if gemm.quantisable else self._plain

    def _sum_s(self, gemms: list[Gemm], rows: Floats) -> Floats:
        total = np.zeros_like(rows)
        for gemm in gemms:
            products = self._products(gemm)
            if gemm.kind == "expert":
                total += gemm.count * self._expert_s(products, gemm, rows)
            else:
                total += gemm.count * products.seconds(rows, gemm.n, gemm.k)
        return total

    def _sum_work(self, gemms: list[Gemm], rows: Floats) -> tuple[Floats, Floats]:
        flops, moved = np.zeros_like(rows), np.zeros_like(rows)
        for gemm in gemms:
            products = self._products(gemm)
            visited, routed = self._visits(gemm, rows)
            flops += gemm.count * 2 * routed * gemm.weights
            weights = visited * gemm.weights * products.weight_bytes
            moved += gemm.count * (weights + routed * (gemm.n + gemm.k) * products.activation_bytes)
        return flops, moved

    def _expert_s(self, products: _Products, gemm: Gemm, rows: Floats) -> Floats:
        """Visited experts side by side: as long as one product of their mean rows over all their weights.

        One grouped kernel computes them, so that n is that of all visited experts together; the time is bounded by
        reading their weights and by the routed rows' FLOPs.
        """
        visited, routed = self._visits(gemm, rows)
        mean_rows = np.where(rows > 0, routed / np.maximum(visited, 1e-9), 0.0)
        return np.maximum.accumulate(products.grouped_s(mean_rows, visited, gemm.n, gemm.k))

    def _visits(self, gemm: Gemm, rows: Floats) -> tuple[Floats, Floats]:
        """(weight matrices read, rows multiplied) for each of ``rows``.

        With uniform routing a given expert is left out by all rows with probability (1 - k / E) ** rows.
        """
        moe = self._model.moe
        if gemm.kind != "expert" or moe is None:
            return np.where(rows > 0, 1.0, 0.0), rows
        left_out = (1 - moe.experts_per_token / moe.num_experts) ** rows
        return moe.num_experts * (1 - left_out), rows * moe.experts_per_token


class _Products:
    """Matrix products with weights in one number format."""

    def __init__(self, hardware: HardwareProfile, dtype: str, weights: WeightFormat) -> None:
        self.weight_bytes, self.activation_bytes = weights.bytes_per_weight, weights.activation_bytes
        self._roofline = roofline = _roofline(hardware, weights)
        calibration, assumed = hardware.calibration, hardware.default_efficiency
        curves, measured = (calibration.gemm if calibration else None), _roofline(hardware, plain_format(dtype))
        if calibration and weights.computed_in == "int8" and isinstance(calibration.quantized_gemm, Curves):
            curves, measured = calibration.quantized_gemm, roofline
        if isinstance(curves, Curves):
            self._gemms: MeasuredGemms | AssumedGemms = MeasuredGemms(curves, roofline, measured)
        else:
            self._gemms = AssumedGemms(roofline, assumed.gemm_compute, assumed.gemm_memory)

    def seconds(self, rows: Floats, n: int, k: int) -> Floats:
        return self._gemms.seconds(rows, n, k)

    def grouped_s(self, rows: Floats, matrices: Floats, n: int, k: int) -> Floats:
        """``matrices`` products of ``rows`` rows each in one kernel; both may be fractional means."""
        whole_rows = np.maximum(rows, 1.0)
        one = self._gemms.seconds(whole_rows, n * GROUPED_MATRICES, k) / GROUPED_MATRICES
        one = np.maximum(one, self._roofline.bound_s(whole_rows, n, k))
        return np.where(rows > 0, matrices * one, 0.0)


def _roofline(hardware: HardwareProfile, weights: WeightFormat) -> GemmRoofline:
    peak, bandwidth = hardware.peak_flops_for(weights.computed_in), hardware.bandwidth_bytes_per_s
    return GemmRoofline(peak, bandwidth, weights.bytes_per_weight, weights.activation_bytes)
