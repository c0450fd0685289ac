"""What can be told of an engine's clock, where it has one."""

from __future__ import annotations

import math

from simserve.engines.base import Engine
from simserve.engines.controls import Paced, Sleeps
from simserve.metrics.rolling import RollingDurations


def clock_figures(engine: Engine) -> dict[str, object]:
    """How the engine's clock goes, and how well the server keeps up with it."""
    figures: dict[str, object] = {}
    if isinstance(engine, Paced):
        clock = engine.clock
        scale = clock.time_scale
        figures["time_scale"] = "inf" if scale == math.inf else scale
        figures["paused"] = clock.is_paused
        figures["lateness_ms"] = lateness_ms(engine.lateness)
    if isinstance(engine, Sleeps):
        figures["is_sleeping"] = engine.sleep_level is not None
    return figures


def lateness_ms(lateness: RollingDurations) -> dict[str, float | int | None]:
    """How long after they were due tokens left in the last minute, in milliseconds of the wall's clock."""
    at = {f"p{percent}": lateness.recent_percentile(percent) for percent in (50, 99)}
    ms = {name: None if late_s is None else late_s * 1e3 for name, late_s in at.items()}
    return {**ms, "tokens": lateness.recent_count(), "max_since_start": lateness.max_s * 1e3}
