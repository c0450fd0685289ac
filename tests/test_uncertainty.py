"""How far off a prediction may be: from held-out operators to the low and high of a run."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simserve.config import EngineOptions
from simserve.hardware import Curves, HardwareProfile, at_the_edge, list_hardware, load_hardware, uncertainty_of
from simserve.hardware.uncertainty import HOST, OPERATORS, stated_uncertainty
from simserve.latency import VLLM_V1, StepTimer
from simserve.metrics.summary import Summary, summarize
from simserve.models import load_model
from simserve.simulation import simulate, simulate_edges
from simserve.workload import synthetic_workload

MODEL = load_model("Llama-3.1-8B")


def test_it_is_the_error_of_held_out_sums_and_what_devices_differ_by() -> None:
    a100 = load_hardware("A100")
    held = max(held.summed_p90 for held in a100.calibration.gemm.held_out)

    assert uncertainty_of(a100, "gemm") == pytest.approx((held**2 + 0.05**2) ** 0.5)
    assert f"matrix products ±{uncertainty_of(a100, 'gemm'):.0%}" in stated_uncertainty(a100)
    assert "from measured operators of this device" in stated_uncertainty(a100)


def test_curves_of_another_device_are_less_certain_than_at_home_and_assumptions_least() -> None:
    home, same_chip, other_chip, assumed = map(load_hardware, ("A100", "A100-80GB-PCIe", "RTX3090", "Gaudi3"))
    operator = "decode_attention"
    ordered = [uncertainty_of(profile, operator) for profile in (home, same_chip, other_chip, assumed)]

    assert ordered == sorted(ordered)
    assert "of this device and A100-SXM4-80GB" in stated_uncertainty(other_chip)
    assert "assumed efficiencies" in stated_uncertainty(assumed)


def test_prompts_are_as_certain_as_the_table_that_they_are_taken_from() -> None:
    """The RTX 4090 has a table of chunks of its own, beside a loan that it needs for nothing here."""
    rtx4090 = load_hardware("RTX4090")
    assert uncertainty_of(rtx4090, "prefill_attention") == uncertainty_of(rtx4090, "chunk_attention")
    assert uncertainty_of(rtx4090, "prefill_attention") < rtx4090.calibration.prefill_attention.derived.uncertainty


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(list_hardware()), st.integers(1, 60), st.integers(0, 4000), st.integers(0, 500))
def test_a_step_at_the_edge_is_slower_or_faster_by_no_more_than_is_stated(name, decodes, context, chunk) -> None:
    profile = load_hardware(name)
    chunks = [(chunk, context)] if chunk else []
    fast_s, now_s, slow_s = (
        _timer(each).step_s(decodes, decodes * context, chunks, decodes + len(chunks))
        for each in (at_the_edge(profile, -1), profile, at_the_edge(profile, 1))
    )
    fields = type(profile.calibration).model_fields if profile.calibration else ()
    operators = [field for field in fields if isinstance(getattr(profile.calibration, field), Curves)]
    widest = max(HOST, *(uncertainty_of(profile, operator) for operator in (*OPERATORS, *operators)))

    assert fast_s <= now_s <= slow_s
    assert now_s / (1 + widest) <= fast_s * (1 + 1e-9)
    assert slow_s <= now_s * (1 + widest) * (1 + 1e-9)


@pytest.mark.parametrize("name", list_hardware())
def test_even_the_fast_edge_does_not_beat_peak_and_bandwidth(name: str) -> None:
    profile = load_hardware(name)
    timer = _timer(at_the_edge(profile, -1))
    for decodes, prompt in ((1, 0), (64, 0), (0, 512), (32, 1024)):
        columns = (1, decodes, decodes * 1000, prompt, prompt * (prompt + 1) / 2, prompt, decodes + (prompt > 0))
        work = timer.total_work(*(np.array([float(value)]) for value in columns))
        seconds = timer.step_s(decodes, decodes * 1000, [(prompt, 0)] if prompt else [], decodes + (prompt > 0))
        assert seconds * (1 + 1e-9) >= work.flops / profile.peak_flops_for("bfloat16")
        assert seconds * (1 + 1e-9) >= work.bytes_moved / profile.bandwidth_bytes_per_s


def test_a_lone_request_is_as_uncertain_as_its_steps_and_a_queue_much_more() -> None:
    """Nine percent in a step are as much in a lone answer; at the brink they decide whether a queue grows at all."""
    a100 = load_hardware("A100")
    widths = {rate: _width_of_mean_ttft(a100, rate) for rate in (0.2, 10.0)}

    assert 0.1 < widths[0.2] < 0.4
    assert widths[10.0] > 2


def test_both_edges_serve_the_same_requests() -> None:
    workload = synthetic_workload(30, 5.0, 300, 40, seed=3)
    for edge in simulate_edges(workload, MODEL, load_hardware("A100"), EngineOptions()):
        assert edge.records.arrival_s.tolist() == workload.arrival_s.tolist()
        assert edge.records.output_tokens.tolist() == workload.output_tokens.tolist()


def _timer(profile: HardwareProfile) -> StepTimer:
    host = VLLM_V1.times(profile.host_time_factor)
    return StepTimer(MODEL, profile, dtype="bfloat16", tensor_parallel_size=1, max_tokens=1056, max_seqs=64, host=host)


def _width_of_mean_ttft(profile: HardwareProfile, rate: float) -> float:
    workload = synthetic_workload(300 if rate < 1 else 1500, rate, 1024, 128, seed=0)
    done = simulate(workload, MODEL, profile, EngineOptions())
    fast, slow = simulate_edges(workload, MODEL, profile, EngineOptions())
    return (_summary(slow).ttft.mean - _summary(fast).ttft.mean) / _summary(done).ttft.mean


def _summary(run) -> Summary:
    return summarize(run.records, run.totals)
