"""No request of any policy is answered faster than its own work at peak FLOP/s and full bandwidth."""

from __future__ import annotations

from functools import cache

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from simserve.config import EngineOptions
from simserve.errors import CapacityError
from simserve.hardware import HardwareProfile, list_hardware, load_hardware
from simserve.metrics.latency import e2e_s, ttft_s
from simserve.metrics.records import FINISHED
from simserve.models import ModelSpec, list_models, load_model
from simserve.simulation import simulate
from simserve.workload import UniformLength, synthetic_workload

ROUNDING = 1 + 1e-9


@cache
def _profile(name: str) -> HardwareProfile:
    return load_hardware(name)


def _weights(model: ModelSpec) -> float:
    """Those that every token goes through, once each, and every step reads; of experts only some tokens and steps."""
    return sum(float(gemm.n * gemm.k * gemm.count) for gemm in model.gemms() if gemm.kind not in ("head", "expert"))


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(list_hardware()),
    st.sampled_from(list_models()),
    st.sampled_from(("vllm-v1", "vllm-v0", "sglang", "sarathi", "orca", "static")),
    st.floats(0.5, 50.0),
    st.integers(0, 99),
)
def test_requests_and_whole_runs(name: str, model_name: str, policy: str, rate: float, seed: int) -> None:
    hardware, model = _profile(name), load_model(model_name)
    workload = synthetic_workload(8, rate, UniformLength(1, 900), UniformLength(1, 40), seed)
    try:
        result = simulate(workload, model, hardware, EngineOptions(policy=policy, dtype="bfloat16"))
    except CapacityError:
        return  # its weights do not fit
    records, totals = result.records, result.totals
    done = records.status == FINISHED
    peak, bandwidth = hardware.peak_flops_for("bfloat16"), hardware.bandwidth_bytes_per_s
    prompt_s = records.input_tokens * 2 * _weights(model) / peak
    step_s = 2 * _weights(model) / bandwidth

    assert np.all(ttft_s(records)[done] * ROUNDING >= prompt_s[done])
    assert np.all(e2e_s(records)[done] * ROUNDING >= (records.output_tokens * step_s)[done])
    assert totals.busy_s * ROUNDING >= totals.flops / peak
    assert totals.busy_s * ROUNDING >= totals.bytes_moved / bandwidth
