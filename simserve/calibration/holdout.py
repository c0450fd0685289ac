"""How well curves predict what they were not fitted to: ``simserve validate operators FOLDER``.

Half of the points are held out at random, then half of the whole shapes (matrix shapes, head configurations). Curves
are fitted to the rest alone, and asked for the held-out points through the code that times an engine's steps. Points
that a warm last cache made faster than memory allows count as what they are limited to: none on an A100, but 14 % of
the Ascend 910B's matrix products, whose 95th percentile is a third larger when they count as measured.

How neighbours are weighed (:mod:`simserve.calibration.complete`) was chosen on halves of the A100's and Ascend 910B's
matrix products, other ones than SEED draws; docs/accuracy.md gives the errors over ten seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from simserve.calibration.fit_attention import fit_chunks, fit_decode, fit_mixed, fit_prefill, prompt_bound_s
from simserve.calibration.fit_gemm import fit_gemm
from simserve.calibration.importers.llmservingsim import HEADS, KV_HEADS
from simserve.calibration.limits import Limits, cap_cached
from simserve.calibration.points import AttentionPoints, Floats, GemmPoints, Mask
from simserve.calibration.predict import predict_batches, predict_decodes, predict_gemms, predict_prompts
from simserve.calibration.shipped import TABLES, Tables, decodes_of, has_both
from simserve.hardware import Calibration, HardwareProfile, HeldOut, load_hardware

SEED = 20
ROUNDS = 3
"""Random halvings that are pooled."""
SUMMED = 4
"""Operators whose sum is tested too: a layer has about so many matrix products, a run more kinds of attention calls."""
AnyPoints = GemmPoints | AttentionPoints
Split = Literal["points", "shapes"]


@dataclass(frozen=True)
class OperatorError:
    """Held-out error of one operator on one device."""

    hardware: str
    operator: str
    held_out: HeldOut


def holdout_errors(root: Path, name: str, seed: int = SEED) -> list[OperatorError]:
    """Errors of every operator with tables on device ``name``; raises :class:`HardwareError` for bad tables.

    Half of the points are chosen anew by each ``seed``.
    """
    found = []
    for operator, splits, test in _tests(TABLES[name], load_hardware(name), root, seed):
        found += [OperatorError(name, operator, test(split)) for split in splits]
    return found


Test = tuple[str, tuple[Split, ...], Callable[[Split], HeldOut]]


def _tests(tables: Tables, hardware: HardwareProfile, root: Path, seed: int) -> list[Test]:
    both: tuple[Split, ...] = ("points", "shapes")
    at = tables, hardware, root
    tests: list[Test] = [("gemm", both, lambda split: gemm_error(*at, split, seed=seed))]
    if tables.quantized_gemm:
        tests.append(("quantized_gemm", both, lambda split: gemm_error(*at, split, "int8", seed)))
    if tables.decode or tables.mixed:
        splits = both if tables.decode else both[:1]
        tests.append(("decode_attention", splits, lambda split: decode_error(*at, split, seed)))
    if tables.prefill:
        tests.append(("prefill_attention", both[:1], lambda split: prefill_error(*at, seed)))
    if tables.mixed:
        tests.append(("chunk_attention", both[:1], lambda split: mixed_error(*at, decodes=False, seed=seed)))
        if has_both(tables.mixed[1](root)):
            tests.append(("mixed_decode", both[:1], lambda split: mixed_error(*at, decodes=True, seed=seed)))
    return tests


def gemm_error(
    tables: Tables, hardware: HardwareProfile, root: Path, split: Split, dtype: str = "bfloat16", seed: int = SEED
) -> HeldOut:
    """Error of matrix products."""
    table = tables.gemm if dtype == "bfloat16" else tables.quantized_gemm
    assert table is not None
    source, points = table[0], table[1](root)
    limits, limited = Limits.of(hardware, dtype), limited_gemms(tables, hardware, root, dtype)

    def predict(train: Mask) -> Floats:
        curves = fit_gemm(points.where(train), limits, source, tables.most_columns)
        return predict_gemms(curves, points, hardware, dtype)

    return _error(limited.seconds, np.column_stack([points.n, points.k]), points.m, split, seed, predict)


def limited_gemms(tables: Tables, hardware: HardwareProfile, root: Path, dtype: str = "bfloat16") -> GemmPoints:
    """The measured matrix products, none faster than memory allows."""
    table = tables.gemm if dtype == "bfloat16" else tables.quantized_gemm
    assert table is not None
    points, limits = table[1](root), Limits.of(hardware, dtype)
    weight_bytes = limits.element_bytes * points.n * points.k
    moved = weight_bytes + limits.element_bytes * points.m * (points.n + points.k)
    bound_s = np.maximum(2 * points.m * points.n * points.k / limits.flops_per_s, moved / limits.bytes_per_s)
    return replace(points, seconds=cap_cached(points.seconds, bound_s, weight_bytes, limits))


def decode_error(tables: Tables, hardware: HardwareProfile, root: Path, split: Split, seed: int = SEED) -> HeldOut:
    """Error of decode attention."""
    table = tables.decode or tables.mixed
    assert table is not None
    limits, source, points = Limits.of(hardware), table[0], _decodes(tables, root)
    limited = limited_decodes(tables, hardware, root)

    def predict(train: Mask) -> Floats:
        return predict_decodes(fit_decode(points.where(train), limits, source), points, hardware)

    return _error(limited.seconds, *configurations(points), split, seed, predict)


def limited_decodes(tables: Tables, hardware: HardwareProfile, root: Path) -> AttentionPoints:
    """The measured decodes, none faster than memory allows."""
    points, limits = _decodes(tables, root), Limits.of(hardware)
    read_bytes = points.kv_heads * points.sequences * points.tokens * 512
    return replace(points, seconds=cap_cached(points.seconds, read_bytes / limits.bytes_per_s, read_bytes, limits))


def _decodes(tables: Tables, root: Path) -> AttentionPoints:
    if tables.decode:
        return tables.decode[1](root)
    assert tables.mixed is not None
    return decodes_of(tables.mixed[1](root))


def prefill_error(tables: Tables, hardware: HardwareProfile, root: Path, seed: int = SEED) -> HeldOut:
    """Error of prompts' attention."""
    assert tables.prefill is not None
    source, read = tables.prefill
    limits = Limits.of(hardware)
    points = read(root)
    bound_s = prompt_bound_s(limits, points.heads, points.kv_heads, points.sequences, points.tokens)

    def predict(train: Mask) -> Floats:
        curves = fit_prefill(points.where(train), limits, source, one_sequence=False)
        return predict_prompts(curves, points, hardware)

    return _error(np.maximum(points.seconds, bound_s), *configurations(points), "points", seed, predict)


def mixed_error(tables: Tables, hardware: HardwareProfile, root: Path, decodes: bool, seed: int = SEED) -> HeldOut:
    """Error of attention calls with a prefill chunk: those of a chunk alone, or with ``decodes`` beside it."""
    assert tables.mixed is not None
    source, read = tables.mixed
    limits, points = Limits.of(hardware), read(root)
    with_chunk = points.where(points.chunk > 0)
    alone = points.where(points.chunk == 0)
    tested = (with_chunk.decodes > 0) == decodes
    packs = hardware.calibration.packs_query_heads if hardware.calibration else True

    def predict(train: Mask) -> Floats:
        fitted_to = with_chunk.where(train | ~tested).joined(alone)
        curves = Calibration(
            packs_query_heads=packs,
            chunk_heads=HEADS,
            chunk_attention=fit_chunks(fitted_to, limits, source, HEADS),
            mixed_decode=fit_mixed(fitted_to, limits, source, HEADS, KV_HEADS) if decodes else None,
            decode_attention=fit_decode(decodes_of(fitted_to), limits, source),
        )
        return predict_batches(curves, with_chunk, hardware, KV_HEADS)

    return _error(with_chunk.seconds, with_chunk.chunk[:, None], with_chunk.chunk, "points", seed, predict, tested)


def configurations(points: AttentionPoints) -> tuple[Floats, Floats]:
    """The heads of each point, and a number for each combination of them."""
    shapes = np.column_stack([points.heads, points.kv_heads])
    return shapes, np.unique(shapes, axis=0, return_inverse=True)[1].reshape(-1).astype(np.float64)


def _error(
    seconds: Floats,
    shapes: Floats,
    alike: Floats,
    split: Split,
    seed: int,
    predict: Callable[[Mask], Floats],
    tested: Mask | None = None,
) -> HeldOut:
    """Error on half of the ``tested`` points, or ``shapes``; sums are of points that have the same ``alike``."""
    random = np.random.default_rng(seed)
    errors, summed = [], []
    for _ in range(ROUNDS):
        test = random.random(len(seconds)) < 0.5 if split == "points" else _half_of_shapes(shapes, random)
        test &= True if tested is None else tested
        predicted = predict(~test)[test]
        errors.append(np.abs(predicted / seconds[test] - 1))
        summed.append(summed_errors(predicted, seconds[test], alike[test], random))
    return held_out(split, np.concatenate(errors), np.concatenate(summed))


def held_out(split: Split, errors: Floats, summed: Floats) -> HeldOut:
    """The figures that a profile keeps of absolute ``errors`` of points and of their sums."""
    median, p95, p90 = (*np.percentile(errors, (50, 95)), np.percentile(summed, 90))
    return HeldOut(
        of=split,
        points=len(errors),
        median=round(float(median), 4),
        p95=round(float(p95), 4),
        summed_p90=round(float(p90), 4),
    )


def summed_errors(predicted: Floats, measured: Floats, alike: Floats, random: np.random.Generator) -> Floats:
    """Absolute errors of sums of SUMMED random points, or the few that there are, with the same value of ``alike``."""
    errors: list[float] = []
    for value in np.unique(alike):
        own = random.permutation(np.flatnonzero(alike == value))
        groups = np.array_split(own, -(-len(own) // SUMMED))
        errors += [abs(predicted[few].sum() / measured[few].sum() - 1) for few in groups]
    return np.array(errors)


def _half_of_shapes(shapes: Floats, random: np.random.Generator) -> Mask:
    distinct, index = np.unique(shapes, axis=0, return_inverse=True)
    chosen = random.permutation(len(distinct)) < len(distinct) // 2
    return np.asarray(chosen[index.reshape(-1)], dtype=np.bool_)
