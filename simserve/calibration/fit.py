"""All of one device's curves from its tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from simserve.calibration.fit_attention import fit_chunks, fit_decode, fit_mixed, fit_prefill
from simserve.calibration.fit_gemm import fit_gemm
from simserve.calibration.fit_small import fit_all_reduce, fit_elementwise
from simserve.calibration.importers.llmservingsim import HEADS, KV_HEADS
from simserve.calibration.limits import Limits, three_digits
from simserve.calibration.shipped import Tables, decodes_of, has_both
from simserve.hardware import Curves, HardwareProfile


def fit_all(tables: Tables, hardware: HardwareProfile, root: Path) -> dict[str, Any]:
    """Fields of :class:`simserve.hardware.Calibration` for the operators that ``tables`` have, read under ``root``."""
    limits = Limits.of(hardware)
    source, read = tables.gemm
    fitted: dict[str, Any] = {"gemm": fit_gemm(read(root), limits, source, tables.most_columns)}
    if tables.quantized_gemm:
        source, read = tables.quantized_gemm
        fitted["quantized_gemm"] = fit_gemm(read(root), Limits.of(hardware, "int8"), source, tables.most_columns)
    if tables.decode:
        source, decodes = tables.decode
        fitted["decode_attention"] = fit_decode(decodes(root), limits, source)
    if tables.prefill:
        source, prompts = tables.prefill
        fitted["prefill_attention"] = fit_prefill(prompts(root), limits, source)
    if tables.elementwise:
        source, small = tables.elementwise
        fitted["elementwise"] = fit_elementwise(small(root), hardware.bandwidth_bytes_per_s, source)
    if tables.all_reduce:
        source, messages = tables.all_reduce
        link = hardware.link or hardware.host_link
        assert link is not None
        fitted["all_reduce"] = fit_all_reduce(messages(root), link.bandwidth_bytes_per_s, source)
    if tables.mixed:
        source, batches = tables.mixed
        points = batches(root)
        fitted["chunk_attention"] = fit_chunks(points, limits, source, HEADS)
        if has_both(points):
            fitted["mixed_decode"] = fit_mixed(points, limits, source, HEADS, KV_HEADS)
        own = fit_decode(decodes_of(points), limits, source)
        fitted["decode_attention"] = _with_rows(fitted.get("decode_attention"), own, limits)
    return fitted


def _with_rows(general: Curves | None, own: Curves, limits: Limits) -> Curves:
    """Rows of ``own`` in place of those of the same head configuration in ``general``, at the latter's columns.

    An engine's own attention is measured on more KV cache than stays in the last cache; single operators often are not.
    """
    if general is None:
        return own
    contexts, measured = np.array(general.columns), np.array(own.columns)
    replaced = {key.rsplit("x", 1)[0] for key in own.rows}
    rows: dict[str, Any] = {key: row for key, row in general.rows.items() if key.rsplit("x", 1)[0] not in replaced}
    for key, row in own.rows.items():
        token_s = int(key.rsplit("x", 1)[1]) * limits.kv_bytes / limits.bytes_per_s
        own_s = (own.launch_s + token_s * measured) / np.array(row)
        beyond = (own.launch_s + token_s * contexts) / row[-1]
        seconds = np.where(contexts > measured[-1], beyond, np.interp(contexts, measured, own_s))
        rows[key] = three_digits(np.clip((general.launch_s + token_s * contexts) / seconds, 1e-4, 1.0))
    fields = general.model_dump() | {
        "rows": rows,
        "source": f"{general.source}; {own.source}",
        "licence": f"{general.licence}; {own.licence}",
        "measured_with": f"{general.measured_with}; {own.measured_with}",
        "points": general.points + own.points,
    }
    return Curves.model_validate(fields)
