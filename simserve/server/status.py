"""The body of ``GET /status``."""

from __future__ import annotations

from collections.abc import Sequence

from simserve.engines.base import Engine, EngineStatus
from simserve.engines.controls import HasReplicas
from simserve.server.clocks import clock_figures
from simserve.server.models.slot import Slot


def status_body(slots: Sequence[Slot]) -> dict[str, object]:
    """What is going on right now.

    ``pending_requests`` wait for their first step and the running ones stand beside them; ``memory_usage`` is the KV
    cache's, in bytes. With several models these are sums over those in memory, and ``models`` has each of them.
    """
    loaded = [slot.service.engine for slot in slots if slot.service]
    if len(slots) == 1 and loaded:
        return _engine_body(loaded[0])
    now = total([engine.status() for engine in loaded])
    return {
        "pending_requests": now.waiting_requests,
        "running_requests": now.running_requests,
        "inflight_batches": now.inflight_batches,
        "completed_requests": now.completed_requests,
        "aborted_requests": now.aborted_requests,
        "memory_usage": _memory(now.kv_blocks_total, now.kv_blocks_used, now.kv_block_bytes),
        "steps": now.steps,
        "clock_s": now.clock_s,
        "models": [_model_body(slot) for slot in slots],
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
        **_replicas(engine),
        **clock_figures(engine),
    }


def _replicas(engine: Engine) -> dict[str, object]:
    """Those of a cluster, one by one."""
    return {"replicas": [replica.row() for replica in engine.replicas]} if isinstance(engine, HasReplicas) else {}


def _memory(total: int, used: int, unit: int) -> dict[str, int]:
    return {"total": total * unit, "used": used * unit, "available": (total - used) * unit}


def total(statuses: Sequence[EngineStatus]) -> EngineStatus:
    """The sum of all, the clock of the oldest; memory is counted in blocks of one byte."""
    return EngineStatus(
        clock_s=max((one.clock_s for one in statuses), default=0.0),
        waiting_requests=sum(one.waiting_requests for one in statuses),
        running_requests=sum(one.running_requests for one in statuses),
        completed_requests=sum(one.completed_requests for one in statuses),
        aborted_requests=sum(one.aborted_requests for one in statuses),
        steps=sum(one.steps for one in statuses),
        inflight_batches=sum(one.inflight_batches for one in statuses),
        kv_blocks_total=sum(one.kv_blocks_total * one.kv_block_bytes for one in statuses),
        kv_blocks_used=sum(one.kv_blocks_used * one.kv_block_bytes for one in statuses),
        kv_block_bytes=1,
    )
