"""How far off each operator's time may be, and the same device with all of them at one end of that.

What is stated here becomes the low and high of every prediction: a workload is served again by the device
:func:`at_the_edge` of its band, so that queueing turns errors of operators into errors of latencies by itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from simserve.hardware.curves import Calibration, Curves, Derived, MixedCurves, PrefillCurves, Rates
from simserve.hardware.profile import Efficiency, HardwareProfile

DEVICES_DIFFER = 0.05
"""Relative half-width of what devices of one kind differ by, which no table of one of them shows: some 8 % from end to
end in clusters of equal GPUs (Sinha et al., "Not All GPUs Are Created Equal", SC 2022)."""

NOT_HELD_OUT = 0.2
"""Of an operator whose curves were never tested on points held out: small operators, all-reduces."""

HOST = 0.5
"""Of the host's time per step: published figures of one engine span a factor of three, 126-541 µs."""


class CarriedOver(NamedTuple):
    """Efficiencies of ``operator`` that were measured in another number format than ``what``: how far off that is."""

    what: str
    operator: str
    half_width: float


OPERATORS = {
    "gemm": "matrix products",
    "decode_attention": "decode attention",
    "prefill_attention": "prefill attention",
}
"""The operators that make up most of a step, in words."""


def uncertainty_of(profile: HardwareProfile, operator: str, carried: Sequence[CarriedOver] = ()) -> float:
    """Relative half-width of the time of ``operator``, a field of :class:`Calibration`; nine in ten should be within.

    Measured: the error of sums of a few held-out points, the larger of both ways to hold them out; if that was on
    another device, with what such a loan was found to cost elsewhere. Never measured: that of the assumed efficiency.
    In each case devices that differ come on top, and what is ``carried`` over to other number formats. The parts are
    errors of their own, and are added as such.
    """
    formats = [loan.half_width for loan in carried if loan.operator == operator]
    curves = curves_in_use(profile, operator)
    if curves is None:
        return math.hypot(_assumed(profile.default_efficiency, operator), DEVICES_DIFFER, *formats)
    loan = curves.derived if isinstance(curves, Curves) else curves
    held_out = curves.held_out if isinstance(curves, Curves) else ()
    errors = [held.p95 if held.summed_p90 is None else held.summed_p90 for held in held_out]
    own = max(errors, default=0.0 if loan else NOT_HELD_OUT)
    return math.hypot(own, loan.uncertainty if loan else 0.0, DEVICES_DIFFER, *formats)


def at_the_edge(profile: HardwareProfile, side: Literal[-1, 1], carried: Sequence[CarriedOver] = ()) -> HardwareProfile:
    """``profile`` with every operator, and the host, as slow (``side`` 1) or fast (-1) as its uncertainty allows.

    With an uncertainty u times become 1 + u, or 1 / (1 + u), times as long. An efficiency never exceeds 1: what is near
    its bound cannot be much faster, however uncertain.
    """
    return profile.model_copy(
        update={
            "default_efficiency": _scaled_efficiency(profile.default_efficiency, side, carried),
            "calibration": _scaled_calibration(profile, side, carried),
            "edge": side,
            "host_time_factor": profile.host_time_factor * (1 + HOST) ** side,
        }
    )


def stated_uncertainty(profile: HardwareProfile, carried: Sequence[CarriedOver] = ()) -> str:
    """Every uncertainty that :func:`at_the_edge` uses, and what it rests on, in words."""
    each = (f"{words} ±{uncertainty_of(profile, name, carried):.0%}" for name, words in OPERATORS.items())
    formats = " and ".join(dict.fromkeys(loan.what for loan in carried))
    said = f" in 16 bits, carried over to {formats}" if formats else ""
    return f"{', '.join(each)}, host ±{HOST:.0%}, from {_basis(profile)}{said}"


def _basis(profile: HardwareProfile) -> str:
    if not profile.calibrated:
        return "datasheet peaks and assumed efficiencies"
    sources = dict.fromkeys(_source(curves_in_use(profile, operator)) for operator in OPERATORS)
    return f"measured operators of {' and '.join(source for source in sources if source)}"


def _source(curves: Curves | Derived | None) -> str:
    derived = curves.derived if isinstance(curves, Curves) else curves
    return derived.derived_from if derived else "this device" if curves else ""


def curves_in_use(profile: HardwareProfile, operator: str) -> Curves | Derived | None:
    """What times of ``operator`` are taken from: for prompts, a table of chunks where there is one."""
    calibration = profile.calibration
    if operator == "prefill_attention" and calibration and calibration.chunk_attention:
        return calibration.chunk_attention
    curves: Curves | Derived | None = getattr(calibration, operator, None)
    return curves


def _assumed(efficiency: Efficiency, operator: str) -> float:
    attention = {
        "decode_attention": efficiency.decode_uncertainty, "prefill_attention": efficiency.prefill_uncertainty
    }  # fmt: skip
    return attention.get(operator, efficiency.uncertainty)


def _scaled_efficiency(assumed: Efficiency, side: int, carried: Sequence[CarriedOver]) -> Efficiency:
    operators = {
        "gemm_compute": "gemm",
        "gemm_memory": "gemm",
        "attention_prefill": "prefill_attention",
        "attention_decode": "decode_attention",
    }
    changes = {}
    for name, operator in operators.items():
        formats = [loan.half_width for loan in carried if loan.operator == operator]
        factor = (1 + math.hypot(_assumed(assumed, operator), DEVICES_DIFFER, *formats)) ** side
        changes[name] = min(getattr(assumed, name) / factor, 1.0)
    return assumed.model_copy(update=changes)


def _scaled_calibration(profile: HardwareProfile, side: int, carried: Sequence[CarriedOver]) -> Calibration | None:
    calibration = profile.calibration
    if calibration is None:
        return None
    changes = {}
    for operator in Calibration.model_fields:
        curves = getattr(calibration, operator)
        if isinstance(curves, Curves):
            changes[operator] = _scaled_curves(curves, (1 + uncertainty_of(profile, operator, carried)) ** side)
    return calibration.model_copy(update=changes)


def _scaled_curves(curves: Curves, factor: float) -> Curves:
    most = math.inf if isinstance(curves, Rates) else 1.0
    changes: dict[str, object] = {
        "rows": {key: tuple(min(value / factor, most) for value in row) for key, row in curves.rows.items()}
    }
    if isinstance(curves, PrefillCurves):
        changes["context_efficiency"] = min(curves.context_efficiency / factor, 1.0)
    if isinstance(curves, MixedCurves):
        changes["idle_block_s"] = curves.idle_block_s * factor
    return curves.model_copy(update=changes)
