"""The roofline of one profile, and on it what its calibrated matrix products and attention reach.

Samuel Williams, Andrew Waterman, David Patterson: Roofline, CACM 52(4), 2009.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from simserve.calibration.fit_attention import prompt_bound_s
from simserve.calibration.limits import Limits
from simserve.calibration.points import Floats
from simserve.errors import ConfigError
from simserve.hardware import Curves, HardwareProfile, stated_uncertainty
from simserve.models import Attention

Reached = tuple[Floats, Floats]
"""Arithmetic intensities in FLOPs per byte, and the FLOP/s reached there."""
BYTES = 2


def reached(hardware: HardwareProfile) -> dict[str, Reached]:
    """What each curve point of the large operators reaches, in bfloat16; empty for a profile without curves.

    Raises :class:`HardwareError` for a device without a bfloat16 peak.
    """
    calibration = hardware.calibration
    if calibration is None:
        return {}
    limits = Limits.of(hardware)
    found: dict[str, Reached] = {}
    if isinstance(calibration.gemm, Curves):
        found["matrix products" + _origin(calibration.gemm)] = _gemms(calibration.gemm, limits)
    if isinstance(calibration.prefill_attention, Curves):
        prompts = calibration.prefill_attention
        found["prefill attention" + _origin(prompts)] = _prompts(prompts, limits, calibration.head_dim)
    if isinstance(calibration.decode_attention, Curves):
        decodes = calibration.decode_attention
        found["decode attention" + _origin(decodes)] = _decodes(decodes, limits, calibration.head_dim)
    return found


def draw_roofline(hardware: HardwareProfile, path: Path) -> None:
    """Draw FLOP/s over arithmetic intensity into ``path`` (.svg, .png or .pdf); raises a :class:`SimServeError`."""
    import matplotlib.pyplot as plt

    points = reached(hardware)
    peak, bandwidth = hardware.peak_flops_for("bfloat16"), hardware.bandwidth_bytes_per_s
    ridge = peak / bandwidth
    left, right = min(0.5, ridge / 10), max(1e4, ridge * 10)
    figure, panel = plt.subplots(figsize=(8, 5), layout="tight")
    panel.plot([left, ridge], [left * bandwidth, peak], "k-", label=f"memory, {bandwidth / 1e9:,.0f} GB/s")
    panel.plot([ridge, right], [peak, peak], "k--", label=f"bfloat16 peak, {peak / 1e12:,.0f} TFLOP/s")
    for label, (intensity, flops_per_s) in points.items():
        panel.plot(intensity, flops_per_s, ".", markersize=3, alpha=0.4, label=label, rasterized=True)
    basis = stated_uncertainty(hardware) if points else f"no curves: {stated_uncertainty(hardware)}"
    panel.set(xscale="log", yscale="log", xlabel="arithmetic intensity, FLOPs per byte", ylabel="FLOP/s")
    panel.set(title=f"{hardware.name}\n{basis}", ylim=(left * bandwidth / 100, peak * 2), xlim=(left, right))
    panel.grid(alpha=0.3)
    panel.legend(loc="lower right", markerscale=4)
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be drawn ({error}); give a .svg, .png or .pdf") from None
    finally:
        plt.close(figure)


def _origin(curves: Curves) -> str:
    return f" (derived from {curves.derived.derived_from})" if curves.derived else ""


def _gemms(curves: Curves, limits: Limits) -> Reached:
    m = np.array(curves.columns)
    shapes = np.array(curves.row_numbers(), dtype=np.float64)
    n, k = shapes[:, :1], shapes[:, 1:]
    bound_s = np.array([limits.gemm_s(m, n, k) for n, k in shapes])
    return _points(curves, 2 * m * n * k, BYTES * (n * k + m * (n + k)), bound_s)


def _decodes(curves: Curves, limits: Limits, head_dim: int) -> Reached:
    rows = np.array(curves.row_numbers(), dtype=np.float64)
    group, batch = rows[:, :1], rows[:, 2:]
    read_bytes = batch * np.array(curves.columns) * (2 * BYTES * head_dim)
    return _points(curves, group * read_bytes * 2 / BYTES, read_bytes, read_bytes / limits.bytes_per_s)


def _prompts(curves: Curves, limits: Limits, head_dim: int) -> Reached:
    tokens = np.array(curves.columns)
    rows = np.array(curves.row_numbers(), dtype=np.float64)
    heads, kv_heads, sequences = (column[:, None] for column in rows.T)
    attentions = [(Attention(int(h), int(kv), head_dim), int(count)) for h, kv, count in rows]
    flops = np.array([[s * a.prefill_flops(int(t), 0) for t in tokens] for a, s in attentions], dtype=np.float64)
    moved = np.array([[s * a.prefill_bytes(int(t), 0, BYTES) for t in tokens] for a, s in attentions])
    return _points(curves, flops, moved, prompt_bound_s(limits, heads, kv_heads, sequences, tokens))


def _points(curves: Curves, flops: Floats, moved_bytes: Floats, bound_s: Floats) -> Reached:
    efficiency = np.array(list(curves.rows.values()))
    seconds = (curves.launch_s + bound_s) / efficiency
    return (flops / moved_bytes).ravel(), (flops / seconds).ravel()
