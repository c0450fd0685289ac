"""The body of ``GET /status``."""

from __future__ import annotations

from simserve.engines.base import Engine


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
    }
