"""Several engines as one."""

from __future__ import annotations

from collections.abc import Sequence

from simserve.engines.base import EngineStatus


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
