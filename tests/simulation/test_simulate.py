"""A whole run: workload in, records out, the same every time."""

from __future__ import annotations

import numpy as np

from simserve.config import EngineOptions
from simserve.hardware import load_hardware
from simserve.metrics.records import FINISHED, REJECTED
from simserve.models import load_model
from simserve.simulation import OpenLoop, simulate
from simserve.workload import LognormalLength, SteadyArrivals, Workload, synthetic_workload

MODEL, HARDWARE, OPTIONS = load_model("meta-llama/Llama-3.1-8B-Instruct"), load_hardware("A100"), EngineOptions()

BURSTY = synthetic_workload(300, SteadyArrivals(20, 0.3), LognormalLength(300, 1), LognormalLength(40, 1), seed=1)


def test_the_same_input_gives_the_same_result_to_the_bit() -> None:
    first, again = (simulate(BURSTY, MODEL, HARDWARE, OPTIONS) for _ in range(2))
    assert first.records.finish_s.tobytes() == again.records.finish_s.tobytes()
    assert first.totals == again.totals
    assert first.description == again.description


def test_a_workload_is_an_open_loop() -> None:
    plain, source = (simulate(load, MODEL, HARDWARE, OPTIONS) for load in (BURSTY, OpenLoop(BURSTY)))
    assert plain.records.finish_s.tobytes() == source.records.finish_s.tobytes()
    assert plain.description.workload == source.description.workload == BURSTY.name


def test_every_row_of_the_workload_has_its_record() -> None:
    records = simulate(BURSTY, MODEL, HARDWARE, OPTIONS).records
    assert np.array_equal(records.arrival_s, BURSTY.arrival_s)
    assert np.array_equal(records.input_tokens, BURSTY.input_tokens)
    assert np.array_equal(records.output_tokens, BURSTY.output_tokens)
    assert np.all(records.arrival_s <= records.scheduled_s)
    assert np.all(records.scheduled_s < records.first_token_s)
    assert np.all(records.first_token_s <= records.finish_s)


def test_a_prompt_that_cannot_fit_is_rejected_and_the_others_go_on() -> None:
    workload = Workload("any", np.zeros(3), np.array([10, 900, 10]), np.array([5, 5, 5]))
    done = simulate(workload, MODEL, HARDWARE, EngineOptions(max_model_len=500))
    assert done.records.status.tolist() == [FINISHED, REJECTED, FINISHED]
    assert np.isnan(done.records.finish_s[1])


def test_progress_ends_with_all_requests_done() -> None:
    reports: list[tuple[int, int, float]] = []
    done = simulate(BURSTY, MODEL, HARDWARE, OPTIONS, lambda *report: reports.append(report))
    assert reports[-1] == (300, 300, np.nanmax(done.records.finish_s))
