"""Laws that every shipped profile keeps with every kind of model: nothing beats the roofline, more takes longer."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simserve.errors import HardwareError
from simserve.hardware import HardwareProfile, list_hardware, load_hardware
from simserve.latency import HostCosts, StepTimer
from simserve.latency.gemm import GemmRoofline, MeasuredGemms
from simserve.latency.number_formats import WeightFormat, plain_format, weight_format
from simserve.models import METHODS, list_models, load_model

MODELS = tuple(list_models())
QUANTIZATIONS = (None, *METHODS)
MAX_TOKENS, MAX_SEQS, MOST_CONTEXT = 2048, 256, 16384
NO_HOST = HostCosts(0.0, 0.0)
ROUNDING = 1 + 1e-9

timers = st.builds(
    lambda hardware, model: (_profile(hardware), _timer(hardware, model)),
    st.sampled_from(list_hardware()),
    st.sampled_from(MODELS),
)
contexts = st.integers(0, MOST_CONTEXT)
chunks = st.lists(st.tuples(st.integers(1, 512), contexts), max_size=3)


@cache
def _profile(hardware: str) -> HardwareProfile:
    return load_hardware(hardware)


@cache
def _weights(hardware: str, method: str | None) -> WeightFormat:
    """In 16 bits where the device cannot compute what was asked for."""
    try:
        return weight_format(METHODS[method] if method else None, "bfloat16", _profile(hardware))
    except HardwareError:
        return plain_format("bfloat16")


@cache
def _timer(hardware: str, model: str, weights: WeightFormat | None = None, kv_dtype: str = "bfloat16") -> StepTimer:
    return StepTimer(
        load_model(model),
        _profile(hardware),
        dtype="bfloat16",
        weights=weights,
        kv_dtype=kv_dtype,
        tensor_parallel_size=1,
        max_tokens=MAX_TOKENS,
        max_seqs=MAX_SEQS,
        host=NO_HOST,
    )


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(list_hardware()),
    st.sampled_from(MODELS),
    st.sampled_from(QUANTIZATIONS),
    st.sampled_from(("bfloat16", "fp8")),
    st.integers(0, MAX_SEQS),
    contexts,
    chunks,
)
def test_no_step_is_faster_than_peak_and_bandwidth_allow(
    name, model, method, kv_dtype, decodes, context, chunks
) -> None:
    """In any number format; the peak is that of the fastest in use."""
    if not decodes and not chunks:
        return
    hardware, weights = _profile(name), _weights(name, method)
    timer = _timer(name, model, weights, kv_dtype)
    peak = max(hardware.peak_flops_for(dtype) for dtype in ("bfloat16", weights.computed_in))
    sampled = min(decodes + len(chunks), MAX_SEQS)
    seconds = timer.step_s(decodes, decodes * context, chunks, sampled)
    tokens = sum(tokens for tokens, _ in chunks)
    pairs = sum(tokens * cached + tokens * (tokens + 1) / 2 for tokens, cached in chunks)
    kv_tokens = sum(tokens + cached for tokens, cached in chunks)
    columns = (1, decodes, decodes * context, tokens, pairs, kv_tokens, sampled)
    work = timer.total_work(*(np.array([float(value)]) for value in columns))

    assert seconds * ROUNDING >= work.flops / peak
    assert seconds * ROUNDING >= work.bytes_moved / hardware.bandwidth_bytes_per_s


@settings(max_examples=150, deadline=None)
@given(timers, st.integers(1, MAX_SEQS), contexts, st.integers(1, 300))
def test_many_decode_steps_at_once_are_the_same_to_the_bit_as_one_by_one(machine, decodes, context, steps) -> None:
    _, timer = machine
    total = decodes * context

    at_once = timer.decode_steps_s(decodes, total, steps)

    assert list(at_once) == [timer.step_s(decodes, total + i * decodes, [], decodes) for i in range(steps)]
    assert np.all(np.diff(at_once) >= 0)


@settings(max_examples=150, deadline=None)
@given(timers, st.integers(0, MAX_SEQS - 1), contexts, chunks, contexts)
def test_a_longer_context_never_makes_a_step_faster(machine, decodes, context, chunks, more) -> None:
    _, timer = machine
    if not decodes and not chunks:
        return
    sampled = min(decodes + len(chunks), MAX_SEQS)
    longer = [(tokens, cached + more) for tokens, cached in chunks]

    before = timer.step_s(decodes, decodes * context, chunks, sampled)

    assert timer.step_s(decodes, decodes * (context + more), longer, sampled) * ROUNDING >= before


@settings(max_examples=150, deadline=None)
@given(timers, st.integers(1, MAX_SEQS - 1), contexts)
def test_attention_of_one_more_decode_is_never_faster(machine, decodes, context) -> None:
    _, timer = machine

    fewer, more = (timer._decode.lines.of(count).at(count * (context + 1)) for count in (decodes, decodes + 1))

    assert more * ROUNDING >= fewer


DEEPEST_DIP = 0.35
"""Share by which a step of a shipped model gets faster at most as rows are added: Llama-3.2-1B on an RTX PRO 6000."""


@pytest.mark.parametrize("hardware", list_hardware())
def test_more_rows_are_faster_only_by_as_much_as_the_measured_sawtooth_dips(hardware: str) -> None:
    """Times of matrix products fall after the boundary of a tile is passed, or where another kernel is chosen."""
    deepest = _deepest_measured_dip(load_hardware(hardware))
    for model in MODELS:
        timer = _timer(hardware, model)
        for seconds in (timer._body_s, timer._head_s):
            dips = 1 - np.array(seconds[1:]) / np.maximum.accumulate(seconds[1:])
            assert dips.max() <= min(deepest + 1e-9, DEEPEST_DIP)


def _deepest_measured_dip(hardware: HardwareProfile) -> float:
    """None where products were never measured on this very device."""
    curves = hardware.calibration.gemm if hardware.calibration else None
    if curves is None:
        return 0.0
    roofline = GemmRoofline(hardware.peak_flops_for("bfloat16"), hardware.bandwidth_bytes_per_s, 2, 2)
    return MeasuredGemms(curves, roofline, roofline).deepest_dip
