"""Turns the steps of a run into columns: one row per request, the pooled gaps between tokens, and the run's totals."""

from __future__ import annotations

from array import array
from collections import Counter
from typing import cast

import numpy as np

from simserve.latency import StepTimer
from simserve.metrics.records import ABORTED, FINISHED, REJECTED, Records, RunTotals, TokenGaps
from simserve.scheduling import Request, Scheduler, StepPlan

COLUMNS = (
    "row", "arrival_s", "scheduled_s", "first_token_s", "finish_s", "input_tokens", "output_tokens", "cached_tokens",
    "preemptions", "status",
)  # fmt: skip


class Recorder:
    """Observes every step of one replica; ``records()`` and ``totals()`` once the run is over."""

    def __init__(self, scheduler: Scheduler, timer: StepTimer) -> None:
        self._scheduler = scheduler
        self._timer = timer
        self._rows = array("d")
        self._gaps: Counter[float] = Counter()
        self.done_requests = 0
        self._busy_s = self._running_s = self._flops = self._bytes = 0.0
        self._steps = self._preemptions = self._prefill_tokens = self._peak_blocks = 0

    def step_done(self, plan: StepPlan, start_s: float, end_s: float, finished: list[Request]) -> None:
        """Account for one step: see :class:`simserve.simulation.replica.StepObserver`."""
        self._steps += 1
        self._busy_s += end_s - start_s
        self._running_s += (end_s - start_s) * (plan.num_decodes + len(plan.chunks))
        self._preemptions += len(plan.preempted)
        self._prefill_tokens += plan.tokens - plan.num_decodes
        self._peak_blocks = max(self._peak_blocks, self._scheduler.blocks.used_blocks)
        chunks = [(chunk.tokens, chunk.context_tokens) for chunk in plan.chunks]
        work = self._timer.step_work(plan.num_decodes, plan.decode_context_tokens, chunks, len(plan.sampled))
        self._flops += work.flops
        self._bytes += work.bytes_moved
        for request in plan.sampled:
            if request.last_token_s == request.last_token_s:  # not NaN: not its first token
                self._gaps[end_s - request.last_token_s] += 1
            request.last_token_s = end_s
        for request in finished:
            self.finish(request, FINISHED)

    def finish(self, request: Request, status: int) -> None:
        """Write the row of a request that has ended: finished, aborted or rejected."""
        self.done_requests += 1
        produced = request.produced_tokens if status != REJECTED else 0
        self._rows.extend(
            (
                cast(int, request.request_id), request.arrival_s, request.scheduled_s, request.first_token_s,
                request.finish_s, request.input_tokens, produced, request.cached_tokens, request.preemptions, status,
            )
        )  # fmt: skip

    def records(self) -> Records:
        """All rows in order of arrival."""
        table = np.frombuffer(self._rows, dtype=np.float64).reshape(-1, len(COLUMNS))
        table = table[np.argsort(table[:, 0], kind="stable")]
        column = {name: np.ascontiguousarray(table[:, index]) for index, name in enumerate(COLUMNS)}
        gaps = sorted(self._gaps.items())
        return Records(
            arrival_s=column["arrival_s"],
            scheduled_s=column["scheduled_s"],
            first_token_s=column["first_token_s"],
            finish_s=column["finish_s"],
            input_tokens=column["input_tokens"].astype(np.int64),
            output_tokens=column["output_tokens"].astype(np.int64),
            cached_tokens=column["cached_tokens"].astype(np.int64),
            preemptions=column["preemptions"].astype(np.int64),
            status=column["status"].astype(np.int8),
            gaps=TokenGaps(
                np.array([gap for gap, _ in gaps], dtype=np.float64), np.array([n for _, n in gaps], dtype=np.int64)
            ),
        )

    def totals(self, records: Records) -> RunTotals:
        """What was counted over the run; ``records`` are this recorder's own."""
        served = records.status != REJECTED
        ends = records.finish_s[records.status == FINISHED]
        duration_s = float(ends.max() - records.arrival_s.min()) if len(ends) else 0.0
        return RunTotals(
            duration_s=duration_s,
            busy_s=self._busy_s,
            steps=self._steps,
            preemptions=self._preemptions,
            prompt_tokens=int(records.input_tokens[served].sum()),
            computed_prefill_tokens=self._prefill_tokens,
            cached_tokens=int(records.cached_tokens.sum()),
            peak_kv_blocks_used=self._peak_blocks,
            mean_running_requests=self._running_s / duration_s if duration_s else 0.0,
            flops=self._flops,
            bytes_moved=self._bytes,
        )


__all__ = ["ABORTED", "FINISHED", "REJECTED", "Recorder"]
