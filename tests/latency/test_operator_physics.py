"""No operator of any shipped profile beats its roofline, whatever its shape; and what must not get faster does not."""

from __future__ import annotations

from functools import cache

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from simserve.hardware import HardwareProfile, PrefillCurves, list_hardware, load_hardware
from simserve.latency.attention_shape import AttentionShape
from simserve.latency.communication import all_reduce_s
from simserve.latency.decode_attention import DecodeAttention
from simserve.latency.gemm import AssumedGemms, GemmRoofline, MeasuredGemms
from simserve.latency.mixed_attention import MixedDecodeAttention
from simserve.latency.prefill_attention import PrefillAttention
from simserve.models import Attention

MAX_TOKENS = 4096
ROUNDING = 1 + 1e-9

profiles = st.sampled_from(list_hardware()).map(lambda name: _profile(name))
attentions = st.builds(
    lambda kv_heads, group, wide: Attention(kv_heads * group, kv_heads, wide),
    st.sampled_from((1, 2, 4, 8, 32)),
    st.sampled_from((1, 2, 4, 8)),
    st.sampled_from((64, 80, 128)),
)
kv_bytes = st.sampled_from((1.0, 2.0))
contexts = st.integers(0, 20_000)


@cache
def _profile(name: str) -> HardwareProfile:
    return load_hardware(name)


def _shape(hardware: HardwareProfile, attention: Attention, kv_bytes: float) -> AttentionShape:
    peak, bandwidth = hardware.peak_flops_for("bfloat16"), hardware.bandwidth_bytes_per_s
    return AttentionShape(attention, kv_bytes, peak, bandwidth, hardware.compute_units or 100)


@settings(max_examples=300, deadline=None)
@given(profiles, st.integers(1, 200_000), st.integers(1, 60_000), st.lists(st.integers(1, 20_000), min_size=1))
def test_matrix_products(hardware: HardwareProfile, n: int, k: int, rows: list[int]) -> None:
    roofline = GemmRoofline(hardware.peak_flops_for("bfloat16"), hardware.bandwidth_bytes_per_s, 2, 2)
    curves = hardware.calibration.gemm if hardware.calibration else None
    m = np.array(sorted(rows), dtype=np.float64)
    gemms = MeasuredGemms(curves, roofline, roofline) if curves else AssumedGemms(roofline, 0.7, 0.8)
    seconds = gemms.seconds(m, n, k)

    flops, moved = 2 * m * n * k, 2 * (n * k + m * (n + k))
    assert np.all(seconds * ROUNDING >= flops / hardware.peak_flops_for("bfloat16"))
    assert np.all(seconds * ROUNDING >= moved / hardware.bandwidth_bytes_per_s)


@settings(max_examples=300, deadline=None)
@given(profiles, attentions, kv_bytes, st.integers(1, 512), contexts, contexts)
def test_decode_attention_alone_and_beside_a_chunk(
    hardware: HardwareProfile, attention: Attention, kv_bytes: float, decodes: int, context: int, more: int
) -> None:
    shape = _shape(hardware, attention, kv_bytes)
    decode = DecodeAttention(shape, hardware)
    prefill = PrefillAttention(shape, hardware, 64)
    mixed = MixedDecodeAttention(decode, prefill, shape, hardware)
    attended = decodes * (context + 1)
    read = 2 * attention.num_kv_heads * attention.head_dim * kv_bytes * attended
    pairs = attended * attention.num_heads * 4 * attention.head_dim
    for lines in (decode.lines.of(decodes), mixed.lines.of(decodes)):
        seconds = lines.at(attended)
        assert seconds * ROUNDING >= read / hardware.bandwidth_bytes_per_s
        assert seconds * ROUNDING >= pairs / hardware.peak_flops_for("bfloat16")
        assert lines.at(attended + decodes * more) * ROUNDING >= seconds


@settings(max_examples=300, deadline=None)
@given(profiles, attentions, kv_bytes, st.integers(1, MAX_TOKENS), contexts, contexts, st.integers(1, 500))
def test_prefill_attention(
    hardware: HardwareProfile, attention: Attention, kv_bytes: float, tokens: int, cached: int, more: int, longer: int
) -> None:
    shape = _shape(hardware, attention, kv_bytes)
    prefill = PrefillAttention(shape, hardware, MAX_TOKENS + 500)
    seconds = prefill.lines.of(tokens).at(cached)
    pairs = tokens * cached + tokens * (tokens + 1) / 2
    read = 2 * attention.num_kv_heads * attention.head_dim * kv_bytes * (tokens + cached)

    assert seconds * ROUNDING >= pairs * attention.num_heads * 4 * attention.head_dim / shape.flops_per_s
    assert seconds * ROUNDING >= read / hardware.bandwidth_bytes_per_s
    assert prefill.lines.of(tokens).at(cached + more) * ROUNDING >= seconds
    if hardware.calibration is None or isinstance(hardware.calibration.prefill_attention, PrefillCurves):
        assert prefill.lines.of(tokens + longer).at(0) * ROUNDING >= prefill.lines.of(tokens).at(0)


@settings(max_examples=200, deadline=None)
@given(profiles, st.sampled_from((2, 4, 8)), st.lists(st.floats(1, 1e9), min_size=2, max_size=20))
def test_all_reduces(hardware: HardwareProfile, devices: int, message_bytes: list[float]) -> None:
    if hardware.link is None and hardware.host_link is None:
        return
    sizes = np.array(sorted(message_bytes))
    seconds = all_reduce_s(hardware, devices, sizes)
    sent = sizes * 2 * (devices - 1) / devices

    assert np.all(seconds * ROUNDING >= sent / hardware.link_between(devices).bandwidth_bytes_per_s)
    assert np.all(np.diff(seconds) >= -1e-12)
