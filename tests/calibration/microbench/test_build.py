"""From measurements to a profile: here of a made-up machine, whose operators reach known fractions of its limits."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from simserve.calibration.import_profile import write_profile
from simserve.calibration.microbench.attention import MeasuredAttention
from simserve.calibration.microbench.bandwidth import Bandwidth
from simserve.calibration.microbench.bench import Timing
from simserve.calibration.microbench.build import (
    MeasuredModel,
    MeasuredOperators,
    Measurements,
    build_profile,
    shipped_profile,
)
from simserve.calibration.microbench.machine import Machine
from simserve.calibration.microbench.whole_steps import FULL, Step
from simserve.calibration.points import AttentionPoints, ElementwisePoints, GemmPoints, MixedPoints
from simserve.config import EngineOptions
from simserve.hardware import Conditions, Curves, HardwareProfile, HostTimes, load_hardware
from simserve.models import ModelSpec, load_model
from simserve.simulation import prepare, simulate
from simserve.workload import synthetic_workload

PEAK, BANDWIDTH, SLOWER = 100e9, 20e9, 1.25
"""FLOP/s and bytes/s, and how many times the sum of its operators a step takes."""
SMALL, SMALLER = load_model("simserve/small-llama"), load_model("simserve/tiny-llama")
HOST = HostTimes(step_s=3e-5, request_s=4e-6)


def machine(name: str = "Made-up CPU", kind: str = "cpu") -> Machine:
    return Machine(
        cast(Any, kind), name, cast(Any, None), "float32", cast(Any, SimpleNamespace(itemsize=4)), 1, 16 * 2**30,
        2**25, 1, 1, {"torch": "2"},
    )  # fmt: skip


def conditions(**changes: Any) -> Conditions:
    fields: dict[str, Any] = {
        "device": "Made-up CPU", "dtype": "float32", "threads": 1, "versions": {"torch": "2"}, "suite": "full",
        "date": date(2026, 11, 21), "duration_s": 99.0, "noise": 0.01, "unquiet": 0.0, "drift": 0.02,
    }  # fmt: skip
    return Conditions(**fields | changes)


def products() -> GemmPoints:
    shapes = [(gemm.n, gemm.k) for gemm in SMALL.gemms()]
    m, n, k = (
        np.array([(m, n, k) for n, k in shapes for m in (1, 2, 3, 4, 8, 16, 24, 32, 64, 96, 128, 256, 384, 512)])
        .astype(float)
        .T
    )
    bound_s = np.maximum(2 * m * n * k / PEAK, 4 * (n * k + m * (n + k)) / BANDWIDTH)
    return GemmPoints(bound_s / 0.8, m, n, k)


def attention() -> MeasuredAttention:
    batch, context = np.array([(b, c) for b in (1, 2, 3, 4, 8, 12, 32) for c in (64, 256, 1024, 2048)]).astype(float).T
    full = np.ones(len(batch))
    decode_s = 2e-5 + batch * context * (2 * 2 * 64 * 4) / BANDWIDTH / 0.5
    decodes = AttentionPoints(decode_s, full * 8, full * 2, batch, context)
    chunk, cached = np.array([(n, c) for n in (16, 64, 256, 512, 1024) for c in (0, 256, 1024)]).astype(float).T
    pairs = chunk * cached + chunk * (chunk + 1) / 2
    none = np.zeros(len(chunk))
    chunks = MixedPoints(2e-5 + 4 * 8 * 64 * pairs / PEAK / 0.5, chunk, cached, none, none)
    return MeasuredAttention(decodes, chunks, heads=8, head_dim=64)


def small() -> ElementwisePoints:
    names = np.repeat(["norm", "activation", "rope", "embedding", "sampler"], 4)
    moved = np.tile([1e3, 1e4, 1e5, 1e6], 5)
    return ElementwisePoints(2e-6 + moved / BANDWIDTH, names, moved)


def measured(*models: MeasuredModel, **changes: Any) -> Measurements:
    bandwidth = Bandwidth(BANDWIDTH, 2**25, {"read": BANDWIDTH})
    return Measurements(
        MeasuredOperators({"float32": PEAK, "bfloat16": 4 * PEAK}, bandwidth, products(), attention(), small()),
        conditions=conditions(**changes),
        models=list(models),
    )


def steps_of(model: ModelSpec, bare: HardwareProfile) -> MeasuredModel:
    """Whole steps that take SLOWER times the operators that ``bare`` knows, and the host's time."""
    options = EngineOptions(dtype="float32", engine_preset="vllm-0.11", max_num_seqs=64)
    timer = prepare(model, bare, options).timer
    timer._host = replace(timer._host, step_s=0.0, request_s=0.0)
    grid = FULL.within(model.max_model_len, 10**6)

    def timing(step: Step) -> Timing:
        seconds = SLOWER * step.predicted_s(timer) + HOST.step_s + step.requests * HOST.request_s
        return Timing(seconds, 0.01, 9, quiet=True)

    return MeasuredModel(model, grid, {step: timing(step) for step in grid.steps}, HOST)


@pytest.fixture(scope="module")
def profile() -> HardwareProfile:
    """The made-up machine, calibrated on two models."""
    nothing = MeasuredModel(SMALL, FULL, {step: Timing(1.0, 0.0, 9, True) for step in FULL.steps}, HOST)
    bare = build_profile("bare", machine(), measured(nothing))
    return build_profile("made-up", machine(), measured(steps_of(SMALL, bare), steps_of(SMALLER, bare)))


def test_limits_are_the_best_that_was_measured(profile: HardwareProfile) -> None:
    assert profile.peak_flops == {"float32": PEAK, "bfloat16": 4 * PEAK}
    assert profile.bandwidth_bytes_per_s == BANDWIDTH
    assert (profile.l2_bytes, profile.compute_units, profile.memory_bytes) == (2**25, 1, 16 * 2**30)
    assert profile.calibrated
    assert profile.confidence == "high"


def test_curves_reach_what_the_operators_reached(profile: HardwareProfile) -> None:
    calibration = profile.calibration
    assert calibration is not None
    assert isinstance(calibration.gemm, Curves)
    assert isinstance(calibration.decode_attention, Curves)

    assert (calibration.dtype, calibration.head_dim, calibration.chunk_heads) == ("float32", 64, 8)
    assert 3 not in calibration.gemm.columns, "it is held out"
    assert calibration.gemm.rows["512x512"][-1] == pytest.approx(0.8, abs=0.01)
    assert calibration.gemm.held_out[0].median < 0.05
    assert calibration.decode_attention.held_out[0].median < 0.1
    assert calibration.conditions == conditions()


def test_anchors_carry_their_errors(profile: HardwareProfile) -> None:
    assert profile.calibration is not None
    small_anchors, smaller_anchors = profile.calibration.step_anchors

    assert (small_anchors.model, smaller_anchors.model) == (SMALL.name, SMALLER.name)
    own, others = (small_anchors.held_out_of(kind) for kind in ("steps", "models"))
    assert own is not None
    assert own.points == len(FULL.held_out)
    assert own.median < 0.04
    assert others is not None
    assert others.median < 0.2, "half of what its layers take beyond their operators goes with the width"


def test_the_profile_is_a_file_that_everything_can_use(profile: HardwareProfile, tmp_path: Path) -> None:
    write_profile(profile, tmp_path / "made-up.yaml")
    loaded = load_hardware(str(tmp_path / "made-up.yaml"))
    assert loaded.calibration is not None
    assert loaded.calibration.step_anchors[0].shape == profile.calibration.step_anchors[0].shape  # type: ignore[union-attr]

    workload = synthetic_workload(20, 5.0, 200, 20, seed=1)
    result = simulate(workload, SMALL, loaded, EngineOptions(dtype="float32"))
    other = simulate(workload, load_model("facebook/opt-125m"), loaded, EngineOptions(dtype="float32"))

    assert result.description.uncertainty.startswith("±5%, from whole steps of this model")
    assert "from operators and whole steps of simserve/small-llama" in other.description.uncertainty
    assert other.totals.duration_s > result.totals.duration_s


def test_another_engine_or_number_format_leaves_the_anchors_out(profile: HardwareProfile) -> None:
    for options in (EngineOptions(dtype="float32", engine_preset="vllm-0.19"), EngineOptions(dtype="bfloat16")):
        assert "whole steps" not in prepare(SMALL, profile, options).uncertainty


def test_a_quick_suite_is_not_believed_as_much() -> None:
    nothing = MeasuredModel(SMALL, FULL, {step: Timing(1.0, 0.0, 9, True) for step in FULL.steps}, HOST)

    assert build_profile("quick", machine(), measured(nothing, suite="quick")).confidence == "low"


@pytest.mark.parametrize(
    ("said", "profile_name"),
    [
        ("NVIDIA A100-SXM4-80GB", "A100-SXM4-80GB"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA GeForce RTX 4090", "RTX4090"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
        ("Quadro P400", None),
    ],
)
def test_a_gpu_is_known_by_what_its_driver_calls_it(said: str, profile_name: str | None) -> None:
    found = shipped_profile(said)

    assert (found.name if found else None) == profile_name


def test_a_known_gpu_keeps_its_data_sheet_where_that_is_higher() -> None:
    nothing = MeasuredModel(SMALL, FULL, {step: Timing(1.0, 0.0, 9, True) for step in FULL.steps}, HOST)

    built = build_profile("mine", machine("NVIDIA A100-SXM4-80GB", "gpu"), measured(nothing))

    known = load_hardware("A100")
    assert built.peak_flops == known.peak_flops
    assert built.bandwidth_bytes_per_s == known.bandwidth_bytes_per_s
    assert (built.link, built.price) == (known.link, known.price)
    assert "data sheet as in A100-SXM4-80GB" in built.sources
