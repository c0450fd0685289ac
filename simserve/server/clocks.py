"""What can be told of an engine's clock, where it has one."""

from __future__ import annotations

import math

from simserve.engines.base import Engine
from simserve.engines.controls import Paced, Sleeps
from simserve.metrics.rolling import Punctuality


def clock_figures(engine: Engine) -> dict[str, object]:
    """How the engine's clock goes, and how well the server keeps up with it."""
    figures: dict[str, object] = {}
    if isinstance(engine, Paced):
        clock = engine.clock
        scale = clock.time_scale
        figures["time_scale"] = "inf" if scale == math.inf else scale
        figures["paused"] = clock.is_paused
        figures["lateness_ms"] = lateness_ms(engine.punctuality)
    if isinstance(engine, Sleeps):
        figures["is_sleeping"] = engine.sleep_level is not None
    return figures


def lateness_ms(punctuality: Punctuality) -> dict[str, float | int | None]:
    """How long after they were due tokens left in the last minute, in milliseconds of the wall's clock.

    One that left early counts as 0; how many did and by how much at most is said beside it.
    """
    late, early = punctuality.late, punctuality.early
    at = {f"p{percent}": late.recent_percentile(percent) for percent in (50, 99)}
    ms = {name: None if late_s is None else late_s * 1e3 for name, late_s in at.items()}
    since_start = {"max_since_start": late.max_s * 1e3, "max_early_since_start": early.max_s * 1e3}
    return {**ms, "tokens": late.recent_count(), "early_tokens": early.recent_count(), **since_start}
