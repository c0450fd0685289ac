"""Whole steps measured on a machine: exact for their own model, a factor on the operators' sum for any other."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simserve.config import EngineOptions
from simserve.errors import HardwareError
from simserve.hardware import Conditions, HardwareProfile, HeldOut, HostTimes, MixedStep, StepAnchors, load_hardware
from simserve.latency import AnchoredStepTimer, anchored_basis, anchored_uncertainty, anchors_for
from simserve.latency.model_shape import model_of, shape_of
from simserve.latency.operator_sums import OperatorSums
from simserve.models import ModelSpec, load_model
from simserve.simulation import prepare

HOST = HostTimes(step_s=2e-3, request_s=1e-4)
SURPLUS, CACHED, BESIDE = 0.3, 1.6, 2.0
"""A made-up engine: what a layer takes beyond its operators, as a share of what SMALL's operators take, and how many
times its operators attention takes on cached tokens, and beside a chunk."""

BATCHES, CONTEXTS = (1, 4, 32), (16.0, 256.0, 1024.0, 4096.0)
PROMPTS, CHUNKS, CACHED_TOKENS = (16.0, 256.0, 1024.0), (64.0, 512.0), (512, 2048)
SMALL, LARGE = "meta-llama/Llama-3.2-1B-Instruct", "meta-llama/Llama-3.1-8B"


class MadeUpEngine:
    """Steps of ``model`` as the made-up engine would take them."""

    def __init__(self, model: ModelSpec, hardware: HardwareProfile) -> None:
        small = load_model(SMALL)
        self._sums, self._small = (
            OperatorSums(each, hardware, dtype="bfloat16", max_tokens=4096, max_seqs=64) for each in (model, small)
        )
        wider = model.hidden_size / small.hidden_size
        self._surplus = SURPLUS * model.num_layers / small.num_layers * (1 + wider) / 2

    def decodes_s(self, batch: int, context: float) -> float:
        own_s, small_s = (float(sums.decodes_s(batch, np.array([context]))[0]) for sums in (self._sums, self._small))
        return own_s + self._surplus * small_s + HOST.step_s + batch * HOST.request_s

    def step_s(self, chunk: int, cached: int, decodes: int = 0, context: int = 0) -> float:
        sums = self._sums
        alone_s = sums.chunk_s(chunk, 0)
        rows_s = sums.rows_s(chunk + decodes, 1 + decodes)
        small_s = self._small.rows_s(chunk + decodes, 1 + decodes) + self._small.chunk_s(chunk, 0)
        device_s = rows_s + alone_s + self._surplus * small_s + CACHED * (sums.chunk_s(chunk, cached) - alone_s)
        if decodes:
            device_s += BESIDE * sums.beside_s(decodes, decodes * context)
        return device_s + HOST.step_s + (1 + decodes) * HOST.request_s


def measured(model_name: str) -> StepAnchors:
    model = load_model(model_name)
    engine = MadeUpEngine(model, load_hardware("A100"))
    return StepAnchors(
        model=model.name,
        shape=shape_of(model),
        dtype="bfloat16",
        contexts=CONTEXTS,
        decode_s={str(b): tuple(engine.decodes_s(b, c) for c in CONTEXTS) for b in BATCHES},
        prompt_tokens=PROMPTS,
        prompt_s=tuple(engine.step_s(int(n), 0) for n in PROMPTS),
        chunk_tokens=CHUNKS,
        chunk_s={str(cached): tuple(engine.step_s(int(n), cached) for n in CHUNKS) for cached in CACHED_TOKENS},
        mixed=tuple(
            MixedStep(decodes=d, context=c, chunk=256, cached=0, seconds=engine.step_s(256, 0, d, c))
            for d, c in ((4, 1024), (16, 512))
        ),
        points=30,
    )


@cache
def anchored_hardware(*models: str) -> HardwareProfile:
    hardware = load_hardware("A100")
    assert hardware.calibration is not None
    anchors = tuple(measured(model) for model in models)
    calibration = hardware.calibration.model_copy(update={"host": HOST, "step_anchors": anchors})
    return hardware.model_copy(update={"calibration": calibration})


@cache
def timer_of(model_name: str, *anchors_of: str) -> AnchoredStepTimer:
    hardware, model = anchored_hardware(*anchors_of), load_model(model_name)
    anchors = anchors_for(model, hardware, "bfloat16")
    assert anchors is not None
    return AnchoredStepTimer(model, hardware, anchors, max_tokens=4096, max_seqs=64)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("context", CONTEXTS)
def test_at_the_grid_the_model_itself_takes_what_was_measured(batch: int, context: float) -> None:
    engine = MadeUpEngine(load_model(SMALL), load_hardware("A100"))

    predicted = timer_of(SMALL, SMALL).step_s(batch, int(batch * context), [], batch)

    assert predicted == pytest.approx(engine.decodes_s(batch, context), rel=1e-5)


def test_between_measured_steps_time_is_straight_in_batch_and_context() -> None:
    timer = timer_of(SMALL, SMALL)

    def decode_s(batch: int, context: int) -> float:
        return timer.step_s(batch, batch * context, [], batch)

    assert decode_s(4, 640) == pytest.approx((decode_s(4, 256) + decode_s(4, 1024)) / 2)
    assert decode_s(18, 256) == pytest.approx((decode_s(4, 256) + decode_s(32, 256)) / 2)


def test_prompts_alone_take_what_was_measured_and_the_straight_line_between() -> None:
    timer, engine = timer_of(SMALL, SMALL), MadeUpEngine(load_model(SMALL), load_hardware("A100"))

    short_s, long_s = (timer.step_s(0, 0, [(tokens, 0)], 1) for tokens in (256, 1024))

    assert short_s == pytest.approx(engine.step_s(256, 0), rel=1e-5)
    assert timer.step_s(0, 0, [(640, 0)], 1) == pytest.approx((short_s + long_s) / 2)


def test_steps_with_chunks_are_as_long_as_the_rows_that_the_engine_pads_them_to() -> None:
    anchors = measured(SMALL).model_copy(update={"row_block": 16})
    timer = AnchoredStepTimer(load_model(SMALL), anchored_hardware(SMALL), anchors, max_tokens=500, max_seqs=64)

    def rows_s(tokens: int) -> float:
        """Two prompts of together so many tokens, without their attention, which is not padded."""
        attention_s = 0.0
        for chunk in (8, tokens - 8):
            lines, alone_s = timer._chunk_lines(chunk)
            attention_s += alone_s + timer._cached * lines.at(0)
        return timer.step_s(0, 0, [(8, 0), (tokens - 8, 0)], 2) - attention_s

    assert rows_s(257) == pytest.approx(rows_s(272)) == pytest.approx(rows_s(265))
    assert rows_s(273) > rows_s(272)
    assert timer.step_s(0, 0, [(500, 0)], 1) > 0, "512 rows"


@pytest.mark.parametrize("model", [SMALL, LARGE])
def test_cached_tokens_and_decodes_beside_a_chunk_have_factors_of_their_own(model: str) -> None:
    """The made-up engine is made of factors, so that the anchors of one model predict another one's steps too."""
    timer, engine = timer_of(model, SMALL), MadeUpEngine(load_model(model), load_hardware("A100"))

    assert timer.step_s(0, 0, [(512, 2048)], 1) == pytest.approx(engine.step_s(512, 2048), rel=0.02)
    assert timer.step_s(8, 8 * 600, [(256, 0)], 9) == pytest.approx(engine.step_s(256, 0, 8, 600), rel=0.02)
    assert timer.step_s(20, 20 * 300, [], 20) == pytest.approx(engine.decodes_s(20, 300), rel=0.02)


def test_beyond_the_grid_time_goes_on_growing_as_the_operators_do() -> None:
    timer, engine = timer_of(SMALL, SMALL), MadeUpEngine(load_model(SMALL), load_hardware("A100"))

    assert timer.step_s(64, 64 * 1024, [], 64) == pytest.approx(engine.decodes_s(64, 1024), rel=0.15)
    assert timer.step_s(4, 4 * 12_000, [], 4) == pytest.approx(engine.decodes_s(4, 12_000), rel=0.05)
    assert timer.step_s(0, 0, [(3000, 0)], 1) == pytest.approx(engine.step_s(3000, 0), rel=0.05)


def test_a_model_takes_its_own_anchors_else_those_next_in_size() -> None:
    hardware = anchored_hardware(SMALL, LARGE)

    def chosen(model_name: str, dtype: str = "bfloat16") -> str | None:
        anchors = anchors_for(load_model(model_name), hardware, dtype)
        return anchors.model if anchors else None

    assert chosen(LARGE) == LARGE
    assert chosen("Qwen/Qwen2.5-7B") == LARGE
    assert chosen("facebook/opt-125m") == SMALL
    assert chosen(SMALL, "float32") is None, "steps in another number format say nothing"


def test_the_uncertainty_says_whose_steps_it_rests_on_and_counts_what_was_held_out() -> None:
    hardware = anchored_hardware(SMALL)
    small, large = load_model(SMALL), load_model(LARGE)
    anchors = measured(SMALL)

    assert anchored_uncertainty(small, hardware, anchors) == 0.05
    assert anchored_basis(small, anchors) == "from whole steps of this model, measured on this device"
    assert anchored_uncertainty(large, hardware, anchors) == 0.12
    assert anchored_basis(large, anchors).startswith(f"from operators and whole steps of {SMALL}")

    held = HeldOut(of="steps", points=12, median=0.08, p95=0.2)
    off = anchors.model_copy(update={"held_out": (held,)})
    assert anchored_uncertainty(small, hardware, off) == 0.08


def test_at_the_edge_of_the_band_whole_steps_take_as_much_longer_as_the_uncertainty_says() -> None:
    hardware, model = anchored_hardware(SMALL), load_model(SMALL)
    timers = [prepare(model, hardware, EngineOptions(), edge).timer for edge in (-1, 0, 1)]
    assert all(isinstance(timer, AnchoredStepTimer) for timer in timers)

    for step in ((4, 4000, [], 4), (0, 0, [(256, 512)], 1), (4, 4000, [(64, 0)], 5)):
        fast_s, now_s, slow_s = (timer.step_s(*step) for timer in timers)
        assert slow_s == pytest.approx(1.05 * now_s, rel=1e-3)
        assert fast_s == pytest.approx(now_s / 1.05, rel=0.02), "no faster than the device allows"


def test_a_machine_that_drifted_is_believed_less() -> None:
    hardware = anchored_hardware(SMALL)
    assert hardware.calibration is not None
    conditions = Conditions(
        device="here", dtype="bfloat16", threads=1, versions={"torch": "2"}, date="2026-11-01", suite="full",
        duration_s=60.0, noise=0.01, unquiet=0.0, drift=-0.15,
    )  # fmt: skip
    drifted = hardware.model_copy(
        update={"calibration": hardware.calibration.model_copy(update={"conditions": conditions})}
    )

    assert anchored_uncertainty(load_model(SMALL), drifted, measured(SMALL)) == 0.15


def test_a_shape_survives_its_file_and_a_broken_one_is_explained() -> None:
    mixture = load_model("mistralai/Mixtral-8x7B-v0.1")
    anchors = measured(SMALL).model_copy(update={"shape": shape_of(mixture), "model": mixture.name})

    assert replace(model_of(anchors), dtype=mixture.dtype, max_model_len=mixture.max_model_len) == replace(
        mixture, path=None
    )
    with pytest.raises(HardwareError, match=f"step anchors of {SMALL} have a shape that no model has"):
        model_of(measured(SMALL).model_copy(update={"shape": {"num_layers": 2}}))


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([(SMALL, SMALL), (LARGE, SMALL), (SMALL, LARGE)]),
    st.integers(0, 60),
    st.integers(0, 9000),
    st.lists(st.tuples(st.integers(1, 512), st.integers(0, 9000)), max_size=3),
)
def test_no_step_is_faster_than_peak_and_bandwidth_allow(models, decodes, context, chunks) -> None:
    """Even if what was measured were a tenth of it: only what the last cache holds need not come from memory."""
    if not decodes and not chunks:
        return
    hardware, model = anchored_hardware(models[1]), load_model(models[0])
    anchors = measured_tenth(models[1])
    timer = AnchoredStepTimer(model, hardware, anchors, max_tokens=4096, max_seqs=64)
    sampled = min(decodes + len(chunks), 64)

    seconds = timer.step_s(decodes, decodes * context, chunks, sampled)

    tokens = sum(tokens for tokens, _ in chunks)
    pairs = sum(tokens * cached + tokens * (tokens + 1) / 2 for tokens, cached in chunks)
    kv_tokens = sum(tokens + cached for tokens, cached in chunks)
    columns = (1, decodes, decodes * context, tokens, pairs, kv_tokens, sampled)
    work = timer.total_work(*(np.array([float(value)]) for value in columns))
    assert seconds * (1 + 1e-9) >= work.flops / hardware.peak_flops_for("bfloat16")
    cache_bytes = hardware.l2_bytes or 0
    assert seconds * (1 + 1e-9) >= (work.bytes_moved - cache_bytes) / hardware.bandwidth_bytes_per_s


@cache
def measured_tenth(model_name: str) -> StepAnchors:
    anchors = measured(model_name)

    def tenth(row: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(value / 10 for value in row)

    update = {
        "decode_s": {key: tenth(row) for key, row in anchors.decode_s.items()},
        "prompt_s": tenth(anchors.prompt_s),
        "chunk_s": {key: tenth(row) for key, row in anchors.chunk_s.items()},
        "mixed": tuple(step.model_copy(update={"seconds": step.seconds / 10}) for step in anchors.mixed),
    }
    return anchors.model_copy(update=update)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([(SMALL, SMALL), (LARGE, SMALL)]), st.integers(1, 64), st.integers(0, 9000), st.integers(1, 300))
def test_many_decode_steps_at_once_are_the_same_to_the_bit_as_one_by_one(models, decodes, context, steps) -> None:
    timer = timer_of(*models)
    total = decodes * context

    at_once = timer.decode_steps_s(decodes, total, steps)

    assert list(at_once) == [timer.step_s(decodes, total + i * decodes, [], decodes) for i in range(steps)]
    assert np.all(np.diff(at_once) >= 0)
