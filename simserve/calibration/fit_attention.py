"""Measured attention -> efficiency curves: decodes, prompts, chunks on cached tokens, decodes beside a chunk."""

from __future__ import annotations

import numpy as np

from simserve.calibration.complete import complete
from simserve.calibration.limits import Limits, Source, cap_cached, three_digits
from simserve.calibration.points import AttentionPoints, Floats, Mask, MixedPoints
from simserve.hardware import Curves, MixedCurves, PrefillCurves

USUAL_TILE_ROWS = 64
SPIKE = 1.1
GROUPS = {1: (0, 1), 4: (1, 8), 32: (8, np.inf)}
"""Query heads per KV head that share rows (more than the first, up to the second number), by the rows' name."""


def fit_decode(points: AttentionPoints, limits: Limits, source: Source) -> Curves:
    """Rows of (query heads per KV head, KV heads, KV heads x sequences).

    How many query heads share a KV head matters little once they are more than one: rows hold the medians of GROUPS.
    """
    launch_s = float(points.seconds.min())
    rows: dict[str, tuple[float, ...]] = {}
    contexts = np.unique(points.tokens)
    group = points.heads / points.kv_heads
    for name, (above, most) in GROUPS.items():
        chosen = (group > above) & (group <= most)
        if chosen.any():
            rows |= _decode_rows(name, points.where(chosen), contexts, launch_s, limits)
    return Curves(**source.fields(len(points)), launch_s=round(launch_s, 9), columns=tuple(contexts), rows=rows)


def _decode_rows(
    name: int, points: AttentionPoints, contexts: Floats, launch_s: float, limits: Limits
) -> dict[str, tuple[float, ...]]:
    batch = points.kv_heads * points.sequences
    group = points.heads / points.kv_heads
    axes = [np.unique(group), np.unique(points.kv_heads), np.unique(batch), contexts]
    seconds = _table(axes, [group, points.kv_heads, batch, points.tokens], points.seconds)
    read_bytes = np.broadcast_to(axes[2][:, None] * contexts * limits.kv_bytes, seconds.shape)
    bound_s = read_bytes / limits.bytes_per_s
    seconds = cap_cached(seconds, bound_s, read_bytes, limits)
    any_known: Mask = np.asarray(~np.isnan(seconds).all(axis=0))
    full = complete(seconds, launch_s + bound_s, axes, wanted=np.broadcast_to(~any_known, seconds.shape))
    known = np.where(np.isnan(seconds), np.nan, full)
    medians = np.where(any_known, _median(np.where(any_known, known, 0.0)), np.median(full, axis=0))
    rows: dict[str, tuple[float, ...]] = {}
    for j, kv_heads in enumerate(axes[1]):
        grown = growing(medians[j], any_known[j])
        efficiency = np.clip((launch_s + bound_s[0, j]) / grown, 1e-4, 1.0)
        rows |= {f"{name}x{kv_heads:.0f}x{b:.0f}": three_digits(efficiency[i]) for i, b in enumerate(axes[2])}
    return rows


def fit_prefill(
    points: AttentionPoints,
    limits: Limits,
    source: Source,
    *,
    one_sequence: bool = True,
    tile_rows: int = USUAL_TILE_ROWS,
) -> PrefillCurves:
    """Rows of (query heads, KV heads, sequences); ``one_sequence`` keeps only those of single prompts."""
    launch_s = float(points.seconds.min())
    axes = [np.unique(points.heads), np.unique(points.kv_heads), np.unique(points.sequences), np.unique(points.tokens)]
    seconds = _table(axes, [points.heads, points.kv_heads, points.sequences, points.tokens], points.seconds)
    heads, kv_heads, sequences, tokens = np.meshgrid(*axes, indexing="ij")
    bound_s = prompt_bound_s(limits, heads, kv_heads, sequences, tokens)
    seconds = np.maximum(seconds, bound_s)
    kept = ~np.isnan(seconds).all(axis=3) & (heads >= kv_heads)[..., 0]
    if one_sequence:
        kept &= (sequences == 1)[..., 0]
    wanted = np.broadcast_to(kept[..., None], seconds.shape)
    full = complete(seconds, launch_s + bound_s, [*axes[:3], axes[3] ** 2], wanted)
    efficiency = np.clip((launch_s + bound_s) / _growing_with_tokens(full, ~np.isnan(seconds)), 1e-4, 1.0)
    rows = {
        f"{axes[0][i]:.0f}x{axes[1][j]:.0f}x{axes[2][b]:.0f}": three_digits(efficiency[i, j, b])
        for i, j, b in np.argwhere(kept)
    }
    return PrefillCurves(
        **source.fields(len(points)),
        launch_s=round(launch_s, 9),
        columns=tuple(axes[3]),
        rows=rows,
        context_efficiency=round(_largest_efficiency(points, limits), 3),
        tile_rows=tile_rows,
    )


def prompt_bound_s(limits: Limits, heads: Floats, kv_heads: Floats, sequences: Floats, tokens: Floats) -> Floats:
    """Seconds that causal attention over ``sequences`` prompts takes at least."""
    flops = 4 * limits.head_dim * heads * sequences * tokens * (tokens + 1) / 2
    moved = limits.kv_bytes * sequences * tokens * (heads + kv_heads)
    return np.maximum(flops / limits.flops_per_s, moved / limits.bytes_per_s)


def _growing_with_tokens(seconds: Floats, measured: Mask) -> Floats:
    """A prompt of one token is often computed as a decode, and slower: it stays as measured."""
    grown = seconds.copy()
    for row in np.ndindex(seconds.shape[:-1]):
        grown[row][1:] = growing(seconds[row][1:], measured[row][1:])
    return grown


def _largest_efficiency(points: AttentionPoints, limits: Limits) -> float:
    """What long prompts of many heads reach: their median, over the tenth of the points with the most work."""
    bound_s = prompt_bound_s(limits, points.heads, points.kv_heads, points.sequences, points.tokens)
    most = bound_s >= np.percentile(bound_s, 90)
    return min(float(np.median(bound_s[most] / points.seconds[most])), 1.0)


def fit_chunks(points: MixedPoints, limits: Limits, source: Source, heads: int) -> Curves:
    """Rows of cached tokens, columns of the chunk's, from calls without decodes."""
    alone = points.where(points.decodes == 0)
    axes = [np.unique(alone.cached), np.unique(alone.chunk)]
    launch_s = float(alone.seconds.min())
    pairs = axes[1] * axes[0][:, None] + axes[1] * (axes[1] + 1) / 2
    bound_s = 4 * limits.head_dim * heads * pairs / limits.flops_per_s
    seconds = np.maximum(_table(axes, [alone.cached, alone.chunk], alone.seconds), bound_s)
    seconds = growing(complete(seconds, launch_s + bound_s, axes), ~np.isnan(seconds))
    efficiency = np.clip((launch_s + bound_s) / seconds, 1e-4, 1.0)
    rows = {f"{cached:.0f}": three_digits(row) for cached, row in zip(axes[0], efficiency, strict=True)}
    return Curves(**source.fields(len(alone)), launch_s=round(launch_s, 9), columns=tuple(axes[1]), rows=rows)


def fit_mixed(points: MixedPoints, limits: Limits, source: Source, heads: int, kv_heads: int) -> MixedCurves:
    """Decodes beside the smallest chunk; then what each idle thread block of the longer chunks' grids costs."""
    both = points.where((points.decodes > 0) & (points.chunk > 0))
    smallest = both.where((both.chunk == both.chunk.min()) & (both.cached == 0))
    axes = [np.unique(smallest.decodes), np.unique(smallest.context)]
    launch_s = float(smallest.seconds.min())
    bound_s = axes[0][:, None] * axes[1] * (limits.kv_bytes * kv_heads) / limits.bytes_per_s
    seconds = np.maximum(_table(axes, [smallest.decodes, smallest.context], smallest.seconds), bound_s)
    seconds = growing(complete(seconds, launch_s + bound_s, axes), ~np.isnan(seconds))
    efficiency = np.clip((launch_s + bound_s) / seconds, 1e-4, 1.0)
    return MixedCurves(
        **source.fields(len(smallest)),
        launch_s=round(launch_s, 9),
        columns=tuple(axes[1]),
        rows={f"{count:.0f}": three_digits(row) for count, row in zip(axes[0], efficiency, strict=True)},
        kv_heads=kv_heads,
        idle_block_s=_idle_block_s(points, heads),
    )


def _idle_block_s(points: MixedPoints, heads: int) -> float:
    """Median over measured batches of the time that neither the chunk alone nor its decodes explain, per idle block."""
    known = {
        (chunk, cached, count, context): seconds
        for chunk, cached, count, context, seconds in zip(
            points.chunk, points.cached, points.decodes, points.context, points.seconds, strict=True
        )
    }
    first = float(points.chunk[points.chunk > 0].min())
    floor_s = float(points.seconds.min())
    found = []
    for (chunk, cached, count, context), seconds in known.items():
        idle_tiles = -(-chunk // USUAL_TILE_ROWS) - 1
        alone_s, beside_s = known.get((chunk, cached, 0.0, 0.0)), known.get((first, 0.0, count, context))
        if count >= 8 and idle_tiles >= 8 and alone_s and beside_s:
            found.append((seconds - alone_s - beside_s + floor_s) / (heads * count * idle_tiles))
    return round(max(float(np.median(found)), 0.0), 13) if found else 0.0


def _table(axes: list[Floats], columns: list[Floats], seconds: Floats) -> Floats:
    """``seconds`` in a table over ``axes``, the fastest where a point was measured twice; NaN where none was."""
    table = np.full([len(axis) for axis in axes], np.inf)
    np.minimum.at(table, tuple(np.searchsorted(a, c) for a, c in zip(axes, columns, strict=True)), seconds)
    return np.where(np.isinf(table), np.nan, table)


def growing(seconds: Floats, measured: Mask) -> Floats:
    """``seconds`` made to grow with each axis: more sequences or more context never take less, dips are noise.

    A cell slower than a ``measured`` one that does more is cut to SPIKE times that one; the rest is the middle between
    the least curve that lies above and the largest that lies below. Cells that were only estimated cut nothing.
    """
    below = np.minimum(seconds, SPIKE * _least_of_larger(np.where(measured, seconds, np.inf)))
    above = below
    for axis in range(seconds.ndim):
        above = np.maximum.accumulate(above, axis=axis)
    least = _least_of_larger(np.where(measured, below, np.inf))
    return np.where(np.isinf(least), above, (above + np.minimum(least, above)) / 2)


def _least_of_larger(seconds: Floats) -> Floats:
    for axis in range(seconds.ndim):
        seconds = np.flip(np.minimum.accumulate(np.flip(seconds, axis), axis=axis), axis)
    return seconds


def _median(values: Floats) -> Floats:
    return np.asarray(np.nanmedian(values, axis=0), dtype=np.float64)
