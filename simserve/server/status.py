"""The body of ``GET /status``."""

from __future__ import annotations

import math

from simserve.engines.base import Engine
from simserve.engines.controls import Paced, Sleeps
from simserve.metrics.rolling import RollingDurations


def status_body(engine: Engine) -> dict[str, object]:
    """What is going on right now.

    ``pending_requests`` wait for their first step and the running ones stand beside them; ``memory_usage`` is the KV
    cache's, in bytes.
    """
    now = engine.status()
    total, used = now.kv_blocks_total, now.kv_blocks_used
    blocks = {"total": total, "used": used, "available": total - used}
    return {
        "pending_requests": now.waiting_requests,
        "running_requests": now.running_requests,
        "inflight_batches": now.inflight_batches,
        "completed_requests": now.completed_requests,
        "aborted_requests": now.aborted_requests,
        "memory_usage": {name: count * now.kv_block_bytes for name, count in blocks.items()},
        "kv_blocks": blocks,
        "steps": now.steps,
        "clock_s": now.clock_s,
        "engine": engine.describe(),
        **now.extra,
        **_pacing(engine),
    }


def _pacing(engine: Engine) -> dict[str, object]:
    """How the engine's clock goes, and how well the server keeps up with it."""
    pacing: dict[str, object] = {}
    if isinstance(engine, Paced):
        clock = engine.clock
        scale = clock.time_scale
        pacing["time_scale"] = "inf" if scale == math.inf else scale
        pacing["paused"] = clock.is_paused
        pacing["lateness_ms"] = lateness_ms(engine.lateness)
    if isinstance(engine, Sleeps):
        pacing["is_sleeping"] = engine.sleep_level is not None
    return pacing


def lateness_ms(lateness: RollingDurations) -> dict[str, float | int | None]:
    """How long after they were due tokens left in the last minute, in milliseconds of the wall's clock."""
    at = {f"p{percent}": lateness.recent_percentile(percent) for percent in (50, 99)}
    ms = {name: None if late_s is None else late_s * 1e3 for name, late_s in at.items()}
    return {**ms, "tokens": lateness.recent_count(), "max_since_start": lateness.max_s * 1e3}
