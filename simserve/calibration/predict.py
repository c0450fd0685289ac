"""What curves say of measured points, through the very code that times an engine's steps."""

from __future__ import annotations

import numpy as np

from simserve.calibration.limits import USUAL_HEAD_DIM
from simserve.calibration.points import AttentionPoints, Floats, GemmPoints, MixedPoints
from simserve.hardware import Calibration, Curves, Dtype, HardwareProfile, PrefillCurves
from simserve.latency.attention_shape import AttentionShape
from simserve.latency.decode_attention import DecodeAttention
from simserve.latency.gemm import AssumedGemms, GemmRoofline, MeasuredGemms
from simserve.latency.mixed_attention import MixedDecodeAttention
from simserve.latency.prefill_attention import PrefillAttention, prompts_s
from simserve.models import Attention, dtype_bytes_of


def predict_gemms(
    curves: Curves | None, points: GemmPoints, hardware: HardwareProfile, dtype: str = "bfloat16"
) -> Floats:
    """Seconds of each point; without curves by the profile's default efficiencies, as below."""
    width = dtype_bytes_of(dtype)
    roofline = GemmRoofline(hardware.peak_flops_for(dtype), hardware.bandwidth_bytes_per_s, width, width)
    assumed = hardware.default_efficiency
    gemms = (
        MeasuredGemms(curves, roofline, roofline)
        if curves
        else AssumedGemms(roofline, assumed.gemm_compute, assumed.gemm_memory)
    )
    seconds = np.empty(len(points))
    for n, k in np.unique(np.column_stack([points.n, points.k]), axis=0):
        chosen = (points.n == n) & (points.k == k)
        seconds[chosen] = gemms.seconds(points.m[chosen], int(n), int(k))
    return seconds


def predict_decodes(
    curves: Curves | None,
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


def predict_prompts(curves: PrefillCurves | None, points: AttentionPoints, hardware: HardwareProfile) -> Floats:
    """Seconds of each point; without curves only of single prompts."""
    seconds = np.empty(len(points))
    for heads, kv_heads, sequences in np.unique(
        np.column_stack([points.heads, points.kv_heads, points.sequences]), axis=0
    ):
        chosen = (points.heads == heads) & (points.kv_heads == kv_heads) & (points.sequences == sequences)
        shape = _shape(heads, kv_heads, hardware)
        tokens = points.tokens[chosen]
        if curves is None:
            alone = PrefillAttention(shape, hardware.model_copy(update={"calibration": None}), int(tokens.max()))
            seconds[chosen] = [alone.lines.of(int(count)).at(0) for count in tokens]
        else:
            seconds[chosen] = prompts_s(curves, shape, int(sequences), tokens)
    return seconds


def predict_batches(calibration: Calibration, points: MixedPoints, hardware: HardwareProfile, kv_heads: int) -> Floats:
    """Seconds of each batch, which all have a chunk; see :meth:`simserve.latency.StepTimer.step_s`."""
    calibrated = hardware.model_copy(update={"calibration": calibration})
    shape = _shape(calibration.chunk_heads, kv_heads, hardware)
    decode = DecodeAttention(shape, calibrated)
    prefill = PrefillAttention(shape, calibrated, int(points.chunk.max()))
    mixed = MixedDecodeAttention(decode, prefill, shape, calibrated)
    seconds = np.empty(len(points))
    rows = zip(points.chunk, points.cached, points.decodes, points.context, strict=True)
    for index, (chunk, cached, decodes, context) in enumerate(rows):
        seconds[index] = prefill.lines.of(int(chunk)).at(cached)
        if decodes:
            idle_tiles = -(-int(chunk) // prefill.tile_rows) - 1
            beside_s = mixed.lines.of(int(decodes)).at(decodes * context)
            seconds[index] += beside_s + decodes * idle_tiles * mixed.idle_s
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
