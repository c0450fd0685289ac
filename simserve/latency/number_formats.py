"""Number formats of weights and KV cache: how many bytes, at which peak they are computed, how sure that is.

Everything but Ascend's int8 was measured in 16 bits. Other formats have the same efficiencies relative to their own
roofline, which is an assumption: :data:`CARRIED_OVER` says how far off it may be.
"""

from __future__ import annotations

from dataclasses import dataclass

from simserve.errors import HardwareError
from simserve.hardware import Carried, Curves, HardwareProfile
from simserve.models import Quantization, dtype_bytes_of

CARRIED_OVER = 0.2
"""Relative half-width of a time in 8 bits that is predicted from efficiencies in 16 bits.

On the one device that was measured in both, the Ascend 910B, its bfloat16 efficiencies predict int8 products of
4096 x 4096 and more with a median error of 15 % (95th percentile 43 %), two thirds of them too fast.
"""

WIDENED = 0.3
"""The same for weights that a kernel widens to 16 bits (int4, and fp8 without fp8 units), measured nowhere here.

Marlin, vLLM's kernel for them, is published to stay near the roofline up to 16-32 tokens and to match 16-bit products
beyond; other kernels, such as AWQ's own, take up to twice as long there.
"""


@dataclass(frozen=True)
class WeightFormat:
    """Bytes of a stored weight, the dtype in which it is multiplied, and bytes of an activation."""

    bytes_per_weight: float
    computed_in: str
    activation_bytes: float


def plain_format(dtype: str) -> WeightFormat:
    """Weights and activations in ``dtype``."""
    return WeightFormat(dtype_bytes_of(dtype), dtype, dtype_bytes_of(dtype))


def weight_format(quantization: Quantization | None, dtype: str, hardware: HardwareProfile) -> WeightFormat:
    """How ``hardware`` multiplies weights stored so with activations that are otherwise in ``dtype``.

    fp8 on NVIDIA's devices without fp8 units is widened to ``dtype`` by a Marlin kernel, as in vLLM. Raises
    :class:`HardwareError` where the profile has no peak for what must be computed.
    """
    if quantization is None:
        return plain_format(dtype)
    computed_in = quantization.weight_dtype if quantization.quantised_activations else dtype
    if computed_in == "fp8" and "fp8" not in hardware.peak_flops and _widens_fp8(hardware):
        computed_in = dtype
    hardware.peak_flops_for(computed_in)
    return WeightFormat(quantization.bytes_per_weight, computed_in, dtype_bytes_of(computed_in))


def check_kv_dtype(kv_dtype: str, hardware: HardwareProfile) -> None:
    """Raise :class:`HardwareError` for a KV cache in fp8 on a device that cannot read it."""
    if kv_dtype == "fp8" and "fp8" not in hardware.peak_flops and not _widens_fp8(hardware):
        raise HardwareError(
            f"{hardware.name} has no peak for fp8 and no kernel that widens it: choose --kv-cache-dtype bfloat16"
        )


def carried_over(
    hardware: HardwareProfile, quantization: Quantization | None, weights: WeightFormat, kv_dtype: str, dtype: str
) -> tuple[Carried, ...]:
    """The operators whose efficiencies in 16 bits stand for these formats, and how unsure that makes them."""
    carried = []
    if quantization is not None and not _measured(hardware, weights):
        widened = weights.computed_in != quantization.weight_dtype
        what = f"{quantization.weight_dtype} weights"
        carried.append(Carried(what, "gemm", WIDENED if widened else CARRIED_OVER))
    if dtype_bytes_of(kv_dtype) != dtype_bytes_of(dtype):
        carried.append(Carried(f"{kv_dtype} KV cache", "decode_attention", CARRIED_OVER))
    return tuple(carried)


def _widens_fp8(hardware: HardwareProfile) -> bool:
    return hardware.vendor == "NVIDIA" and hardware.kind == "gpu"


def _measured(hardware: HardwareProfile, weights: WeightFormat) -> bool:
    calibration = hardware.calibration
    return calibration is not None and weights.computed_in == "int8" and isinstance(calibration.quantized_gemm, Curves)
