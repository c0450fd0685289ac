"""Number formats of weights and KV cache: how many bytes, and at which peak they are computed."""

from __future__ import annotations

from simserve.errors import HardwareError
from simserve.hardware import HardwareProfile
from simserve.models import dtype_bytes_of

COMPUTED_AS_STORED = ("fp8", "int8")
"""Formats in which activations are quantised too (W8A8), so that the device's peak for them counts."""


def bytes_of(dtype: str) -> float:
    """Bytes of one element of ``dtype``; raises :class:`simserve.errors.ModelError` for an unknown one."""
    return 0.5 if dtype == "int4" else dtype_bytes_of(dtype)


def peak_flops_of(hardware: HardwareProfile, dtype: str, weight_dtype: str) -> float:
    """Peak at which weights in ``weight_dtype`` are multiplied; those of 4 bits are widened to ``dtype`` first.

    Raises :class:`HardwareError` where the profile states no such peak.
    """
    computed = weight_dtype if weight_dtype in COMPUTED_AS_STORED else dtype
    if weight_dtype not in (dtype, "int4", *COMPUTED_AS_STORED):
        raise HardwareError(
            f"weights in {weight_dtype} with activations in {dtype} are not supported: choose fp8 or int8"
        )
    return hardware.peak_flops_for(computed)
