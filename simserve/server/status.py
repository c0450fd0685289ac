"""The body of ``GET /status``."""

from __future__ import annotations

from simserve.engines.base import Engine
from simserve.server.models import ModelPool
from simserve.server.models.pool import Slot


def status_body(models: ModelPool) -> dict[str, object]:
    """What is going on right now.

    ``pending_requests`` wait for their first step and the running ones stand beside them; ``memory_usage`` is the KV
    cache's, in bytes. With several models these are sums over those in memory, and ``models`` has each of them.
    """
    if len(models.slots) == 1 and models.slots[0].service:
        return _engine_body(models.slots[0].service.engine)
    now = models.status()
    return {
        "pending_requests": now.waiting_requests,
        "running_requests": now.running_requests,
        "inflight_batches": now.inflight_batches,
        "completed_requests": now.completed_requests,
        "aborted_requests": now.aborted_requests,
        "memory_usage": _memory(now.kv_blocks_total, now.kv_blocks_used, now.kv_block_bytes),
        "steps": now.steps,
        "clock_s": now.clock_s,
        "models": [_model_body(slot) for slot in models.slots],
    }


def _model_body(slot: Slot) -> dict[str, object]:
    body: dict[str, object] = {"id": slot.model.name, "state": slot.state, "requests": slot.pins}
    return body | (_engine_body(slot.service.engine) if slot.service else {})


def _engine_body(engine: Engine) -> dict[str, object]:
    now = engine.status()
    total, used = now.kv_blocks_total, now.kv_blocks_used
    return {
        "pending_requests": now.waiting_requests,
        "running_requests": now.running_requests,
        "inflight_batches": now.inflight_batches,
        "completed_requests": now.completed_requests,
        "aborted_requests": now.aborted_requests,
        "memory_usage": _memory(total, used, now.kv_block_bytes),
        "kv_blocks": _memory(total, used, 1),
        "steps": now.steps,
        "clock_s": now.clock_s,
        "engine": engine.describe(),
        **now.extra,
    }


def _memory(total: int, used: int, unit: int) -> dict[str, int]:
    return {"total": total * unit, "used": used * unit, "available": (total - used) * unit}
