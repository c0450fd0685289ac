"""A profile of one's own: a device's data sheet with efficiency curves fitted to the tables that a user gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from simserve.calibration.fit_attention import fit_chunks, fit_decode, fit_mixed, fit_prefill
from simserve.calibration.fit_gemm import GRID_SHAPES, fit_gemm
from simserve.calibration.fit_small import fit_all_reduce, fit_elementwise
from simserve.calibration.holdout import Split, decode_error, gemm_error, prefill_error
from simserve.calibration.importers.llmservingsim import HEADS, KV_HEADS
from simserve.calibration.limits import Limits, Source
from simserve.calibration.points import GemmPoints, Points
from simserve.calibration.shipped import Tables, decodes_of
from simserve.calibration.tables import Measured
from simserve.errors import HardwareError
from simserve.hardware import Calibration, Curves, HardwareProfile, HeldOut, load_hardware

FEWEST_POINTS = 20
"""Half of the points are held out to tell the error: of fewer that says nothing."""
FEWEST_SHAPES = 4
MOST_IMPOSSIBLE = 0.25
"""Share of matrix products that may come out faster than the data sheet, as small ones do from a warm cache."""
GRID_COLUMNS, SHAPE_COLUMNS = 24, 160
"""Numbers of tokens kept of matrix products: of a grid of shapes, and of a few shapes measured finely."""


def calibrated_profile(measured: Measured, base: HardwareProfile, name: str, source: Source) -> HardwareProfile:
    """``base`` under another ``name``, its curves replaced by those fitted to ``measured``; the others stay.

    Raises :class:`HardwareError` where there are too few points to hold any back, or more than MOST_IMPOSSIBLE of the
    matrix products are faster than ``base`` can be.
    """
    _check(measured, base)
    fitted: dict[str, Any] = _fit_large(measured, base, source) | _fit_small(measured, base, source)
    if measured.mixed:
        fitted["chunk_heads"] = HEADS
    calibration = (base.calibration or Calibration()).model_copy(update=fitted)
    return base.model_copy(update={"name": name, "aliases": (), "calibration": calibration})


def write_profile(profile: HardwareProfile, file: Path) -> None:
    """Write ``profile`` as YAML, in one go: ``file`` is complete or as it was; raises :class:`HardwareError`."""
    content = profile.model_dump(mode="json", exclude_none=True)
    part = file.with_name(f".{file.stem}.part.yaml")
    try:
        part.write_text(yaml.safe_dump(content, sort_keys=False, width=118, allow_unicode=True), encoding="utf-8")
        load_hardware(str(part))
        part.replace(file)
    except OSError as error:
        raise HardwareError(f"{file}: cannot be written ({error.strerror or error})") from None
    finally:
        part.unlink(missing_ok=True)


def _check(measured: Measured, base: HardwareProfile) -> None:
    decodes = decodes_of(measured.mixed) if measured.mixed else measured.decode
    large: dict[str, Points | None] = {
        "matrix products": measured.gemm, "decodes": decodes, "prompts": measured.prefill
    }  # fmt: skip
    for what, points in large.items():
        if points is not None and len(points) < FEWEST_POINTS:
            raise HardwareError(
                f"the tables have only {len(points)} {what}, but {FEWEST_POINTS} are needed to hold half of them back"
            )
    if measured.prefill and not (measured.prefill.sequences == 1).any():
        raise HardwareError("the tables have no prompt measured alone (one sequence), which prefill curves start from")
    if measured.gemm:
        _check_possible(measured.gemm, base)


def _check_possible(gemms: GemmPoints, base: HardwareProfile) -> None:
    m, n, k = gemms.m, gemms.n, gemms.k
    limits = Limits.of(base)
    moved = limits.element_bytes * (n * k + m * (n + k))
    bound_s = np.maximum(2 * m * n * k / limits.flops_per_s, moved / limits.bytes_per_s)
    impossible = int((gemms.seconds < bound_s).sum())
    if impossible > MOST_IMPOSSIBLE * len(gemms):
        raise HardwareError(
            f"{impossible:,} of {len(gemms):,} matrix products are faster than {base.name} can be by its data sheet: "
            "name the device that was measured with --hardware"
        )


def _fit_large(measured: Measured, base: HardwareProfile, source: Source) -> dict[str, Curves]:
    limits, tables, here = Limits.of(base), _as_tables(measured, source), Path()
    fitted: dict[str, Curves] = {}
    if measured.gemm:
        curves = fit_gemm(measured.gemm, limits, source, tables.most_columns)
        shapes = np.column_stack([measured.gemm.n, measured.gemm.k])
        errors = [gemm_error(tables, base, here, split) for split in _splits(shapes)]
        fitted["gemm"] = _with_errors(curves, errors)
    decodes = decodes_of(measured.mixed) if measured.mixed else measured.decode
    if decodes:
        shapes = np.column_stack([decodes.heads, decodes.kv_heads])
        errors = [decode_error(tables, base, here, split) for split in _splits(shapes)]
        fitted["decode_attention"] = _with_errors(fit_decode(decodes, limits, source), errors)
    if measured.prefill:
        error = prefill_error(tables, base, here)
        fitted["prefill_attention"] = _with_errors(fit_prefill(measured.prefill, limits, source), [error])
    if measured.mixed:
        fitted["chunk_attention"] = fit_chunks(measured.mixed, limits, source, HEADS)
        fitted["mixed_decode"] = fit_mixed(measured.mixed, limits, source, HEADS, KV_HEADS)
    return fitted


def _fit_small(measured: Measured, base: HardwareProfile, source: Source) -> dict[str, Curves]:
    fitted: dict[str, Curves] = {}
    if measured.elementwise:
        fitted["elementwise"] = fit_elementwise(measured.elementwise, base.bandwidth_bytes_per_s, source)
    if measured.all_reduce:
        link = base.link or base.host_link
        if link is None:
            raise HardwareError(f"{base.name} has no link, which an all-reduce needs: add one to its profile")
        fitted["all_reduce"] = fit_all_reduce(measured.all_reduce, link.bandwidth_bytes_per_s, source)
    return fitted


def _as_tables(measured: Measured, source: Source) -> Tables:
    """What the held-out errors are computed from; the folder that they pass on is not looked at."""
    none = np.empty(0)
    gemm, decode, prefill, mixed = measured.gemm, measured.decode, measured.prefill, measured.mixed
    gemm = gemm or GemmPoints(none, none, none, none)
    shapes = len(np.unique(np.column_stack([gemm.n, gemm.k]), axis=0))
    return Tables(
        gemm=(source, lambda _: gemm),
        decode=(source, lambda _: decode) if decode else None,
        prefill=(source, lambda _: prefill) if prefill else None,
        mixed=(source, lambda _: mixed) if mixed else None,
        most_columns=GRID_COLUMNS if shapes >= GRID_SHAPES else SHAPE_COLUMNS,
    )


def _splits(shapes: np.ndarray[Any, Any]) -> tuple[Split, ...]:
    return ("points", "shapes") if len(np.unique(shapes, axis=0)) >= FEWEST_SHAPES else ("points",)


def _with_errors(curves: Curves, errors: list[HeldOut]) -> Curves:
    return curves.model_copy(update={"held_out": tuple(errors)})
