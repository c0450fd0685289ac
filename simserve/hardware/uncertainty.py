"""How far off each operator's time may be, and the same device with all of them at one end of that.

What is stated here becomes the low and high of every prediction: a workload is served again by the device
:func:`at_the_edge` of its band, so that queueing turns errors of operators into errors of latencies by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

from simserve.hardware.anchors import HostTimes, StepAnchors
from simserve.hardware.curves import Calibration, Curves, Derived, MixedCurves, PrefillCurves, Rates
from simserve.hardware.profile import Efficiency, HardwareProfile

DEVICES_DIFFER = 0.05
"""Relative half-width of what devices of one kind differ by, which no table of one of them shows. Performance was found
to vary by 8 % on average, and 22 % at most, within clusters of equal GPUs (Sinha et al., "Not All GPUs Are Created
Equal", SC 2022, arXiv 2208.11035)."""

NOT_HELD_OUT = 0.2
"""Of an operator whose curves were never tested on points held out: small operators, all-reduces."""

HOST = 0.5
"""Of the host's time per step: published figures of one engine span a factor of three, 126-541 µs."""

OPERATORS = {
    "gemm": "matrix products",
    "decode_attention": "decode attention",
    "prefill_attention": "prefill attention",
}
"""The operators that make up most of a step, in words."""


class Carried(NamedTuple):
    """An efficiency of ``operator`` that stands for a number format in which it was not measured."""

    what: str
    operator: str
    uncertainty: float


def uncertainty_of(profile: HardwareProfile, operator: str, carried: Iterable[Carried] = ()) -> float:
    """Relative half-width of the time of ``operator``, a field of :class:`Calibration`; nine in ten should be within.

    Measured: the error of sums of a few held-out points, the larger of both ways to hold them out; if that was on
    another device, with what such a loan was found to cost elsewhere. Never measured: that of the assumed efficiency.
    In each case number formats it is ``carried`` over to and devices that differ come on top. The parts are errors of
    their own, and are added as such.
    """
    formats = [each.uncertainty for each in carried if each.operator == operator]
    curves = curves_in_use(profile, operator)
    if curves is None:
        return math.hypot(_assumed(profile.default_efficiency, operator), DEVICES_DIFFER, *formats)
    loan = curves.derived if isinstance(curves, Curves) else curves
    held_out = curves.held_out if isinstance(curves, Curves) else ()
    errors = [held.p95 if held.summed_p90 is None else held.summed_p90 for held in held_out]
    own = max(errors, default=0.0 if loan else NOT_HELD_OUT)
    return math.hypot(own, loan.uncertainty if loan else 0.0, DEVICES_DIFFER, *formats)


def stated_uncertainty(profile: HardwareProfile, carried: Iterable[Carried] = ()) -> str:
    """Every uncertainty that :func:`at_the_edge` uses, and what it rests on, in words."""
    carried = list(carried)
    operators = (f"{words} ±{uncertainty_of(profile, name, carried):.0%}" for name, words in OPERATORS.items())
    formats = f" in 16 bits, carried over to {' and '.join(each.what for each in carried)}" if carried else ""
    return f"{', '.join(operators)}, host ±{HOST:.0%}, from {_basis(profile)}{formats}"


def at_the_edge(profile: HardwareProfile, side: int, carried: Iterable[Carried] = ()) -> HardwareProfile:
    """``profile`` with every operator, and the host, as slow (``side`` 1) or fast (-1) as its uncertainty allows.

    With an uncertainty u times become 1 + u, or 1 / (1 + u), times as long. An efficiency never exceeds 1: what is near
    its bound cannot be much faster, however uncertain.
    """
    carried = list(carried)

    def factor(operator: str) -> float:
        return (1 + uncertainty_of(profile, operator, carried)) ** side

    def assumed(operator: str) -> float:
        return (1 + math.hypot(_assumed(profile.default_efficiency, operator), DEVICES_DIFFER)) ** side

    return _slowed(profile, factor, assumed, (1 + HOST) ** side)


def slowed(profile: HardwareProfile, factor: float) -> HardwareProfile:
    """``profile`` with everything ``factor`` times as slow: operators, whole steps, host."""
    return _slowed(profile, lambda _: factor, lambda _: factor, factor)


def curves_in_use(profile: HardwareProfile, operator: str) -> Curves | Derived | None:
    """What times of ``operator`` are taken from: for prompts, a table of chunks where there is one."""
    calibration = profile.calibration
    if operator == "prefill_attention" and calibration and calibration.chunk_attention:
        return calibration.chunk_attention
    curves: Curves | Derived | None = getattr(calibration, operator, None)
    return curves


def _basis(profile: HardwareProfile) -> str:
    if not profile.calibrated:
        return "datasheet peaks and assumed efficiencies"
    sources = dict.fromkeys(_source(curves_in_use(profile, operator)) for operator in OPERATORS)
    return f"measured operators of {' and '.join(source for source in sources if source)}"


def _source(curves: Curves | Derived | None) -> str:
    derived = curves.derived if isinstance(curves, Curves) else curves
    return derived.derived_from if derived else "this device" if curves else ""


def _assumed(efficiency: Efficiency, operator: str) -> float:
    attention = {
        "decode_attention": efficiency.decode_uncertainty, "prefill_attention": efficiency.prefill_uncertainty
    }  # fmt: skip
    return attention.get(operator, efficiency.uncertainty)


Factor = Callable[[str], float]


def _slowed(profile: HardwareProfile, factor: Factor, assumed: Factor, host_factor: float) -> HardwareProfile:
    efficiency, calibration = profile.default_efficiency, profile.calibration
    operators = {
        "gemm_compute": "gemm",
        "gemm_memory": "gemm",
        "attention_prefill": "prefill_attention",
        "attention_decode": "decode_attention",
    }
    lower = {name: min(getattr(efficiency, name) / assumed(operator), 1.0) for name, operator in operators.items()}
    return profile.model_copy(
        update={
            "default_efficiency": efficiency.model_copy(update=lower),
            "calibration": calibration and _slowed_calibration(calibration, factor, host_factor),
            "host_time_factor": profile.host_time_factor * host_factor,
        }
    )


def _slowed_calibration(calibration: Calibration, factor: Factor, host_factor: float) -> Calibration:
    changes: dict[str, object] = {}
    for operator in Calibration.model_fields:
        curves = getattr(calibration, operator)
        if isinstance(curves, Curves):
            changes[operator] = _slowed_curves(curves, factor(operator))
    if calibration.host:
        host = calibration.host
        changes["host"] = HostTimes(
            step_s=host.step_s * host_factor,
            request_s=host.request_s * host_factor,
            launch_s=host.launch_s * host_factor,
        )
    changes["step_anchors"] = tuple(_slowed_steps(steps, host_factor) for steps in calibration.step_anchors)
    return calibration.model_copy(update=changes)


def _slowed_curves(curves: Curves, factor: float) -> Curves:
    most = math.inf if isinstance(curves, Rates) else 1.0
    changes: dict[str, object] = {
        "rows": {key: tuple(min(value / factor, most) for value in row) for key, row in curves.rows.items()}
    }
    if isinstance(curves, PrefillCurves):
        changes["context_efficiency"] = min(curves.context_efficiency / factor, 1.0)
    if isinstance(curves, MixedCurves):
        changes["idle_block_s"] = curves.idle_block_s * factor
    return curves.model_copy(update=changes)


def _slowed_steps(steps: StepAnchors, factor: float) -> StepAnchors:
    def times(rows: dict[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
        return {key: tuple(seconds * factor for seconds in row) for key, row in rows.items()}

    changes: dict[str, object] = {
        "decode_s": times(steps.decode_s),
        "chunk_s": times(steps.chunk_s),
        "prompt_s": tuple(seconds * factor for seconds in steps.prompt_s),
        "mixed": tuple(step.model_copy(update={"seconds": step.seconds * factor}) for step in steps.mixed),
    }
    return steps.model_copy(update=changes)
