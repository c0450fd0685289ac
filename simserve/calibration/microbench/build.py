"""From what was measured to a hardware profile: limits, curves, anchors, and how far off they are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from simserve.calibration.fit_attention import fit_chunks, fit_decode
from simserve.calibration.fit_gemm import fit_gemm
from simserve.calibration.fit_small import fit_all_reduce, fit_elementwise
from simserve.calibration.holdout import SEED, configurations, held_out, summed_errors
from simserve.calibration.limits import Limits, Source
from simserve.calibration.microbench.attention import MeasuredAttention
from simserve.calibration.microbench.bandwidth import Bandwidth
from simserve.calibration.microbench.bench import Timing
from simserve.calibration.microbench.machine import Machine
from simserve.calibration.microbench.whole_steps import Grid, Step, anchors_of, error_on
from simserve.calibration.points import (
    AllReducePoints,
    AttentionPoints,
    ElementwisePoints,
    Floats,
    GemmPoints,
    Mask,
)
from simserve.calibration.predict import predict_decodes, predict_gemms
from simserve.errors import HardwareError
from simserve.hardware import (
    Calibration,
    Conditions,
    Curves,
    Dtype,
    HardwareProfile,
    HostTimes,
    StepAnchors,
    list_hardware,
    load_hardware,
)
from simserve.latency import AnchoredStepTimer
from simserve.models import ModelSpec

HELD_ROWS = (3, 24, 96, 384)
"""Numbers of rows of matrix products that the fit does not see."""
HELD_BATCHES = (3, 12)
"""Likewise batches of decode attention."""


@dataclass(frozen=True)
class MeasuredModel:
    """Whole steps of one model; without ``timings`` where none were measured yet."""

    model: ModelSpec
    grid: Grid
    timings: dict[Step, Timing]
    """With the host's time around the model's."""
    host: HostTimes
    row_block: int = 1
    """Steps with a chunk are padded to a multiple of so many rows."""


@dataclass(frozen=True)
class MeasuredOperators:
    """One by one."""

    peaks: dict[str, float]
    bandwidth: Bandwidth
    products: GemmPoints
    attention: MeasuredAttention
    small: ElementwisePoints


@dataclass(frozen=True)
class Measurements:
    """All that was measured on one machine."""

    operators: MeasuredOperators
    conditions: Conditions
    models: list[MeasuredModel]
    all_reduce: AllReducePoints | None = None


def build_profile(name: str, machine: Machine, measured: Measurements) -> HardwareProfile:
    """The profile of ``machine``, called ``name``."""
    dtype = cast(Dtype, machine.dtype_name)
    operators, attention = measured.operators, measured.operators.attention
    bare = _data_sheet(name, machine, measured)
    limits = Limits(
        bare.peak_flops_for(dtype), bare.bandwidth_bytes_per_s, 0.0, machine.dtype.itemsize, attention.head_dim
    )
    source = Source(
        "measured by simserve calibrate on the machine itself",
        "your own",
        f"torch {machine.versions['torch']}, {machine.threads} threads, {measured.conditions.date}, {dtype}",
    )
    fields: dict[str, Any] = {
        "conditions": measured.conditions,
        "host": measured.models[0].host,
        "dtype": dtype,
        "head_dim": attention.head_dim,
        "gemm": _products(operators.products, limits, source, bare, dtype),
        "decode_attention": _decodes(attention.decodes, limits, source, bare, dtype),
        "chunk_attention": fit_chunks(attention.chunks, limits, source, attention.heads),
        "chunk_heads": attention.heads,
        "elementwise": fit_elementwise(operators.small, bare.bandwidth_bytes_per_s, source),
    }
    link = bare.link or bare.host_link
    if measured.all_reduce is not None and link is not None:
        fields["all_reduce"] = fit_all_reduce(measured.all_reduce, link.bandwidth_bytes_per_s, source)
    profile = bare.model_copy(update={"calibration": Calibration(**fields)})
    return _with_anchors(profile, dtype, [each for each in measured.models if each.timings])


def _data_sheet(name: str, machine: Machine, measured: Measurements) -> HardwareProfile:
    """Limits as measured; of a GPU that a shipped profile describes, its data sheet where that is higher."""
    operators = measured.operators
    known = shipped_profile(machine.name) if machine.kind == "gpu" else None
    peaks = dict(known.peak_flops) if known else {}
    for dtype, flops in operators.peaks.items():
        peaks[cast(Dtype, dtype)] = max(float(f"{flops:.4g}"), peaks.get(cast(Dtype, dtype), 0.0))
    best = operators.products
    reached = float((2 * best.m * best.n * best.k / best.seconds).max())
    peaks[cast(Dtype, machine.dtype_name)] = max(peaks[cast(Dtype, machine.dtype_name)], reached)
    bandwidth = operators.bandwidth.bytes_per_s
    content: dict[str, Any] = {
        "name": name,
        "vendor": known.vendor if known else machine.name.split()[0],
        "kind": machine.kind,
        "memory_bytes": machine.memory_bytes,
        "reported_memory_bytes": machine.memory_bytes,
        "bandwidth_bytes_per_s": max(bandwidth, known.bandwidth_bytes_per_s if known else 0.0),
        "peak_flops": peaks,
        "l2_bytes": operators.bandwidth.cache_bytes or None,
        "compute_units": machine.compute_units,
        "sources": f"measured by simserve calibrate on {machine.name}, {measured.conditions.date}",
        "confidence": "high" if measured.conditions.suite == "full" else "low",
    }
    if known:
        content |= {part: getattr(known, part) for part in ("link", "host_link", "power", "price")}
        content["sources"] += f"; data sheet as in {known.name}"
    return HardwareProfile.model_validate(content)


def shipped_profile(device_name: str) -> HardwareProfile | None:
    """The shipped profile whose name or alias is in what the driver calls the device; the longest that is."""

    def normal(text: str) -> str:
        return re.sub(r"[^a-z0-9]", "", text.lower())

    said = normal(device_name)
    found: tuple[int, HardwareProfile] | None = None
    for name in list_hardware():
        profile = load_hardware(name)
        length = max((len(normal(word)) for word in (name, *profile.aliases) if normal(word) in said), default=0)
        if length and (found is None or length > found[0]):
            found = length, profile
    return found[1] if found else None


def _products(points: GemmPoints, limits: Limits, source: Source, bare: HardwareProfile, dtype: Dtype) -> Curves:
    held = np.isin(points.m, HELD_ROWS)
    curves = fit_gemm(points.where(~held), limits, source)
    test = points.where(held)
    if not held.any():
        return curves
    return _with_error(curves, predict_gemms(curves, test, bare, dtype), test.seconds, test.m)


def _decodes(points: AttentionPoints, limits: Limits, source: Source, bare: HardwareProfile, dtype: Dtype) -> Curves:
    held: Mask = np.isin(points.sequences, HELD_BATCHES)
    curves = fit_decode(points.where(~held), limits, source)
    test = points.where(held)
    if not held.any():
        return curves
    predicted = predict_decodes(curves, test, bare, dtype, limits.head_dim)
    return _with_error(curves, predicted, test.seconds, configurations(test)[1])


def _with_error(curves: Curves, predicted: Floats, seconds: Floats, alike: Floats) -> Curves:
    summed = summed_errors(predicted, seconds, alike, np.random.default_rng(SEED))
    held = held_out("points", np.abs(predicted / seconds - 1), summed)
    return curves.model_copy(update={"held_out": (held,)})


def _with_anchors(profile: HardwareProfile, dtype: Dtype, models: list[MeasuredModel]) -> HardwareProfile:
    """Anchors of each model, with their error on the steps held out, and on what other models' anchors say of it."""
    anchors = [anchors_of(each.model, dtype, each.grid, each.timings, each.row_block) for each in models]
    tested = []
    for index, (own, each) in enumerate(zip(anchors, models, strict=True)):
        errors = [error_on("steps", each.grid.held_out, each.timings, _timer(profile, each, [own]))]
        others = anchors[:index] + anchors[index + 1 :]
        if others:
            errors.append(error_on("models", each.grid.steps, each.timings, _timer(profile, each, others)))
        tested.append(own.model_copy(update={"held_out": tuple(error for error in errors if error)}))
    return _with(profile, tested)


def _timer(profile: HardwareProfile, measured: MeasuredModel, anchors: list[StepAnchors]) -> AnchoredStepTimer:
    from simserve.latency import anchors_for

    anchored = _with(profile, anchors)
    chosen = anchors_for(measured.model, anchored, anchors[0].dtype)
    if chosen is None:
        raise HardwareError(f"no whole steps in {anchors[0].dtype} were measured")
    steps = measured.grid.steps
    return AnchoredStepTimer(
        measured.model,
        anchored,
        chosen,
        max_tokens=max(step.rows for step in steps),
        max_seqs=max(step.requests for step in steps),
    )


def _with(profile: HardwareProfile, anchors: list[StepAnchors]) -> HardwareProfile:
    assert profile.calibration is not None
    calibration = profile.calibration.model_copy(update={"step_anchors": tuple(anchors)})
    return profile.model_copy(update={"calibration": calibration})
