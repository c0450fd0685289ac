"""What curves say of measured points, through the very code that times an engine's steps."""

from __future__ import annotations

import numpy as np

from simserve.calibration.limits import USUAL_HEAD_DIM
from simserve.calibration.points import AttentionPoints, Floats, GemmPoints
from simserve.hardware import Calibration, Curves, Dtype, HardwareProfile, PrefillCurves
from simserve.latency.attention_shape import AttentionShape
from simserve.latency.decode_attention import DecodeAttention
from simserve.latency.gemm import GemmRoofline, MeasuredGemms
from simserve.latency.prefill_attention import prompts_s
from simserve.models import Attention, dtype_bytes_of


def predict_gemms(curves: Curves, points: GemmPoints, hardware: HardwareProfile, dtype: str = "bfloat16") -> Floats:
    """Seconds of each point."""
    width = dtype_bytes_of(dtype)
    roofline = GemmRoofline(hardware.peak_flops_for(dtype), hardware.bandwidth_bytes_per_s, width, width)
    gemms = MeasuredGemms(curves, roofline, roofline)
    seconds = np.empty(len(points))
    for n, k in np.unique(np.column_stack([points.n, points.k]), axis=0):
        chosen = (points.n == n) & (points.k == k)
        seconds[chosen] = gemms.seconds(points.m[chosen], int(n), int(k))
    return seconds


def predict_decodes(
    curves: Curves,
    points: AttentionPoints,
    hardware: HardwareProfile,
    dtype: Dtype = "bfloat16",
    head_dim: int = USUAL_HEAD_DIM,
) -> Floats:
    """Seconds of each point."""
    calibration = Calibration(decode_attention=curves, dtype=dtype, head_dim=head_dim)
    calibrated = hardware.model_copy(update={"calibration": calibration})
    seconds = np.empty(len(points))
    for heads, kv_heads in np.unique(np.column_stack([points.heads, points.kv_heads]), axis=0):
        attention = DecodeAttention(_shape(heads, kv_heads, hardware, dtype, head_dim), calibrated)
        for index in np.flatnonzero((points.heads == heads) & (points.kv_heads == kv_heads)):
            sequences = int(points.sequences[index])
            seconds[index] = attention.lines.of(sequences).at(sequences * points.tokens[index])
    return seconds


def predict_prompts(curves: PrefillCurves, points: AttentionPoints, hardware: HardwareProfile) -> Floats:
    """Seconds of each point."""
    seconds = np.empty(len(points))
    for heads, kv_heads, sequences in np.unique(
        np.column_stack([points.heads, points.kv_heads, points.sequences]), axis=0
    ):
        chosen = (points.heads == heads) & (points.kv_heads == kv_heads) & (points.sequences == sequences)
        shape = _shape(heads, kv_heads, hardware)
        seconds[chosen] = prompts_s(curves, shape, int(sequences), points.tokens[chosen])
    return seconds


def _shape(
    heads: float, kv_heads: float, hardware: HardwareProfile, dtype: str = "bfloat16", head_dim: int = USUAL_HEAD_DIM
) -> AttentionShape:
    return AttentionShape(
        Attention(int(heads), int(kv_heads), head_dim),
        dtype_bytes_of(dtype),
        hardware.peak_flops_for(dtype),
        hardware.bandwidth_bytes_per_s,
        hardware.compute_units or 1,
    )
