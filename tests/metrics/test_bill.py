"""What a run takes: never less than idle power, never more than peak power, and money by the device hour."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simserve.config import EngineOptions
from simserve.hardware import load_hardware
from simserve.metrics.bill import Bill, bill_for, bill_keys, bill_of, full_load_s, sum_of
from simserve.metrics.records import RunDescription, RunTotals
from simserve.models import load_model
from simserve.simulation import simulate
from simserve.workload import synthetic_workload

SHARE = st.floats(0.0, 1.0)


@given(
    SHARE, SHARE, SHARE, SHARE, SHARE, SHARE,
    st.floats(1.0, 1000.0), st.one_of(st.none(), st.floats(1.0, 100.0)), st.integers(1, 8),
)  # fmt: skip
def test_energy_is_at_least_idle_and_at_most_peak_power_times_time(
    busy: float, mixed: float, flops: float, moved: float, mixed_flops: float, mixed_moved: float,
    peak_w: float, idle_w: float | None, devices: int,
) -> None:  # fmt: skip
    peak_w = max(peak_w, idle_w or 0.0)
    taken_s = 50.0
    about = description(peak_w=peak_w, idle_w=idle_w, devices=devices)
    done = totals(busy * taken_s, mixed, flops, moved, mixed_flops, mixed_moved)
    bill = bill_of(done, about, taken_s)
    assert bill.energy_wh is not None
    assert bill.energy_wh_low is not None
    assert bill.energy_wh_high is not None
    least_w = peak_w * 0.05 if idle_w is None else idle_w
    joules = [each * 3600.0 for each in (bill.energy_wh_low, bill.energy_wh, bill.energy_wh_high)]
    assert joules == sorted(joules)
    assert joules[0] >= devices * least_w * taken_s * (1 - 1e-12)
    assert joules[2] <= devices * peak_w * taken_s * (1 + 1e-12)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), max_size=6))
def test_bills_add_up(parts: list[tuple[float, float]]) -> None:
    about = description(peak_w=400.0, idle_w=50.0, usd_per_hour=2.0)
    bills = [bill_for(about, busy + rest, busy, busy / 2) for busy, rest in parts]
    whole = sum_of(bills)
    together = bill_for(about, sum(map(sum, parts)), sum(busy for busy, _ in parts), sum(b for b, _ in parts) / 2)
    assert whole.energy_wh == pytest.approx(together.energy_wh)
    assert whole.cost_usd == pytest.approx(together.cost_usd)


def test_an_hour_at_idle_and_half_of_it_at_full_load() -> None:
    bill = bill_for(description(peak_w=400.0, idle_w=100.0, usd_per_hour=2.0, devices=2), 3600.0, 1800.0, 1800.0)
    assert bill.energy_wh == pytest.approx(2 * (100 + 300 / 2))
    assert bill.cost_usd == pytest.approx(4.0)
    keys = bill_keys(bill, 10, (1000, 500))
    assert keys["wh_per_request"] == pytest.approx(50.0)
    assert keys["joules_per_output_token"] == pytest.approx(500 * 3600 / 500)
    assert keys["usd_per_million_tokens"] == pytest.approx(4.0 / 1500 * 1e6)


def test_what_nobody_knows_is_not_made_up() -> None:
    unknown = bill_for(description(), 3600.0, 10.0, 5.0)
    assert unknown == Bill(1.0, None, None, None, None)
    assert sum_of([unknown, Bill(1.0, 1.0, 1.0, 1.0, 1.0)]) == Bill(2.0, None, None, None, None)
    assert bill_keys(unknown, 0, (0, 0))["wh_per_request"] is None


def test_prompts_draw_more_than_answers() -> None:
    """A100, Llama-3.1-8B: prompts alone come close to the peak, a single answer at a time does not."""
    model, hardware = load_model("meta-llama/Llama-3.1-8B-Instruct"), load_hardware("A100")
    loads = []
    for inputs, outputs in ((2000, 1), (16, 500)):
        done = simulate(synthetic_workload(20, 0.5, inputs, outputs, seed=1), model, hardware, EngineOptions())
        loads.append(full_load_s(done.totals, done.description) / done.totals.busy_s)
    prompts, answers = loads
    assert prompts > 0.9
    assert 0.2 < answers < 0.5


def test_a_user_pays_what_he_says() -> None:
    model, hardware = load_model("facebook/opt-125m"), load_hardware("A100").priced(9.0)
    done = simulate(synthetic_workload(5, 5.0, 16, 4, seed=1), model, hardware, EngineOptions())
    bill = bill_of(done.totals, done.description, 3600.0)
    assert bill.cost_usd == pytest.approx(9.0)
    assert done.description.price_source == "as given"


@cache
def _plain() -> RunDescription:
    model, hardware = load_model("facebook/opt-125m"), load_hardware("A100")
    return simulate(synthetic_workload(1, 1.0, 16, 2, seed=1), model, hardware, EngineOptions()).description


def description(**known: object) -> RunDescription:
    nothing = {"peak_w": None, "idle_w": None, "usd_per_hour": None, "price_source": None, "devices": 1}
    return replace(_plain(), **{**nothing, **known})  # type: ignore[arg-type]


def totals(
    busy_s: float, mixed: float, flops: float, moved: float, mixed_flops: float, mixed_moved: float
) -> RunTotals:
    """Shares of what an A100 can do in ``busy_s``; those of mixed steps are parts of the others."""
    flops, moved = flops * busy_s * 312e12, moved * busy_s * 2.039e12
    return RunTotals(
        duration_s=busy_s, busy_s=busy_s, steps=1, preemptions=0, prompt_tokens=0, computed_prefill_tokens=0,
        cached_tokens=0, peak_kv_blocks_used=0, mean_running_requests=0.0, flops=flops, bytes_moved=moved,
        mixed_busy_s=mixed * busy_s, mixed_flops=mixed_flops * flops, mixed_bytes_moved=mixed_moved * moved,
    )  # fmt: skip
