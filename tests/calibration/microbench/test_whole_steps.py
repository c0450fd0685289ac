"""Which steps are measured, how they become anchors, and how far anchors are off."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simserve.calibration.microbench.bench import Timing
from simserve.calibration.microbench.engine import SPREAD, contexts_of
from simserve.calibration.microbench.whole_steps import FULL, GPU, QUICK, Grid, Step, anchors_of, error_on
from simserve.hardware import Calibration, HardwareProfile, load_hardware
from simserve.latency import AnchoredStepTimer
from simserve.models import load_model

MODEL = "meta-llama/Llama-3.2-1B-Instruct"


def timing(seconds: float) -> Timing:
    return Timing(seconds, noise=0.01, samples=9, quiet=True)


def made_up(step: Step) -> Timing:
    """Straight in everything, as the timer's lines are."""
    rows = step.decodes + step.chunk
    return timing(0.01 + 1e-4 * rows + 1e-6 * step.decodes * step.context + 1e-7 * step.chunk * step.cached)


@pytest.mark.parametrize("grid", [FULL, GPU, QUICK])
def test_every_batch_has_at_least_four_contexts_for_the_knee_that_caches_make(grid: Grid) -> None:
    assert len(grid.contexts) >= 4
    assert not set(grid.held_out) & {Step(batch, context) for batch in grid.batches for context in grid.contexts}
    assert len(grid.steps) == len(set(grid.steps))


def test_a_short_model_has_fewer_contexts_and_prompts() -> None:
    grid = FULL.within(most_context=700, most_tokens=10**6)

    assert grid.contexts == (16, 200, 500)
    assert grid.prompts[-1] == 640
    assert grid.cached == (256,)
    assert all(max(step.context + 1, step.chunk + step.cached) <= 700 for step in grid.steps)


def test_a_small_kv_cache_has_smaller_batches() -> None:
    grid = FULL.within(most_context=10_000, most_tokens=8000)

    assert grid.batches == (1, 2, 3, 4)
    assert all(step.decodes <= 4 for step in grid.steps)
    assert grid.most_tokens <= 8000


@given(st.integers(1, 200), st.integers(0, 5000))
def test_contexts_of_a_batch_are_spread_around_their_mean(decodes: int, context: int) -> None:
    contexts = contexts_of(Step(decodes, context))

    assert len(contexts) == decodes
    assert sum(contexts) == decodes * context
    assert min(contexts) >= (1 - SPREAD) * context - 1
    assert max(contexts) <= (1 + SPREAD) * context + 1


def anchored(grid: Grid) -> tuple[HardwareProfile, AnchoredStepTimer]:
    model, hardware = load_model(MODEL), load_hardware("A100")
    anchors = anchors_of(model, "bfloat16", grid, {step: made_up(step) for step in grid.steps})
    assert isinstance(hardware.calibration, Calibration)
    calibration = hardware.calibration.model_copy(update={"step_anchors": (anchors,)})
    profile = hardware.model_copy(update={"calibration": calibration})
    return profile, AnchoredStepTimer(model, profile, anchors, max_tokens=2048, max_seqs=64)


def test_anchors_are_what_was_measured_without_what_was_held_out() -> None:
    profile, _ = anchored(FULL)
    assert profile.calibration is not None
    anchors = profile.calibration.step_anchors[0]

    assert list(anchors.decode_s) == [str(batch) for batch in FULL.batches]
    assert anchors.decode_s["8"][2] == pytest.approx(made_up(Step(8, 500)).seconds)
    assert anchors.prompt_s[-1] == pytest.approx(made_up(Step(chunk=1024)).seconds)
    assert anchors.chunk_s["768"][1] == pytest.approx(made_up(Step(chunk=256, cached=768)).seconds)
    assert anchors.mixed[1].seconds == pytest.approx(made_up(Step(8, 400, 256)).seconds)
    assert anchors.points == len(FULL.steps) - len(FULL.held_out)


def test_the_error_on_held_out_steps_is_relative_and_of_all_of_them() -> None:
    _, timer = anchored(FULL)
    decodes = [step for step in FULL.held_out if not step.chunk]
    timings = {step: timing(made_up(step).seconds * 1.1) for step in decodes}

    error = error_on("steps", decodes, timings, timer)

    assert error is not None
    assert (error.of, error.points) == ("steps", len(decodes))
    assert error.median == pytest.approx(1 - 1 / 1.1, abs=0.01)
    assert error_on("steps", [], timings, timer) is None


def test_a_step_is_predicted_from_its_sums() -> None:
    _, timer = anchored(FULL)
    step = Step(decodes=4, context=100, chunk=64, cached=32)

    assert step.requests == 5
    assert step.predicted_s(timer) == timer.step_s(4, 400, [(64, 32)], 5)
    assert np.isfinite(step.predicted_s(timer))
