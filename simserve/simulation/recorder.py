"""Turns the steps of a run into columns: one row per request, the pooled gaps between tokens, and the run's totals."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import cast

import numpy as np

from simserve.latency import StepTimer
from simserve.metrics.records import FINISHED, REJECTED, Records, RunTotals, TokenGaps
from simserve.scheduling import Request, Scheduler
from simserve.simulation.replica import Run

COLUMNS = (
    "row", "arrival_s", "scheduled_s", "first_token_s", "finish_s", "input_tokens", "output_tokens", "cached_tokens",
    "preemptions", "status",
)  # fmt: skip

RUNS_PER_REPORT = 1024
"""How often progress is told: some ten times a second."""

MOST_GAPS = 1 << 20
"""Gaps kept before equal ones are merged: memory stays flat over a long, quiet run."""


class Recorder:
    """Observes every step of one replica; ``records()`` and ``totals()`` once the run is over.

    ``on_progress`` is called now and then with (requests done, simulated seconds).
    """

    def __init__(
        self, scheduler: Scheduler, timer: StepTimer, on_progress: Callable[[int, float], None] | None = None
    ) -> None:
        self._on_progress = on_progress
        self._runs = 0
        self._scheduler = scheduler
        self._timer = timer
        self._rows = array("d")
        self._gap_s = array("d")
        self._gap_counts = array("d")
        self._gap_limit = MOST_GAPS
        self.done_requests = 0
        self._busy_s = self._running_s = self._flops = self._bytes = 0.0
        self._steps = self._prefill_tokens = 0

    def run_done(self, run: Run, finished: list[Request]) -> None:
        """Account for a run; see :class:`simserve.simulation.replica.StepObserver`."""
        plan, steps = run.plan, len(run.ends_s)
        busy_s = run.end_s - run.start_s
        self._steps += steps
        self._busy_s += busy_s
        self._running_s += busy_s * (plan.num_decodes + len(plan.chunks))
        if steps > 1:
            work = self._timer.decode_steps_work(plan.num_decodes, plan.decode_context_tokens, steps)
            self._gap_s.frombytes(cast(bytes, run.durations_s.tobytes()))  # type: ignore[union-attr]
            self._gap_counts.extend([plan.num_decodes] * steps)
        else:
            chunks = [(chunk.tokens, chunk.context_tokens) for chunk in plan.chunks]
            work = self._timer.step_work(plan.num_decodes, plan.decode_context_tokens, chunks, plan.num_sampled)
            self._prefill_tokens += plan.tokens - plan.num_decodes
            self._note_gaps(run)
        self._flops += work.flops
        self._bytes += work.bytes_moved
        for request in finished:
            self.finish(request, FINISHED)
        self._runs += 1
        if self._on_progress is not None and self._runs % RUNS_PER_REPORT == 0:
            self._on_progress(self.done_requests, run.end_s)
        if len(self._gap_s) > self._gap_limit:
            self._merge_gaps()

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
        self._merge_gaps()
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
            gaps=TokenGaps(np.array(self._gap_s), np.array(self._gap_counts).astype(np.int64)),
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
            preemptions=int(records.preemptions.sum()),
            prompt_tokens=int(records.input_tokens[served].sum()),
            computed_prefill_tokens=self._prefill_tokens,
            cached_tokens=int(records.cached_tokens.sum()),
            peak_kv_blocks_used=self._scheduler.blocks.usable_blocks - self._scheduler.least_free_blocks,
            mean_running_requests=self._running_s / duration_s if duration_s else 0.0,
            flops=self._flops,
            bytes_moved=self._bytes,
        )

    def _note_gaps(self, run: Run) -> None:
        """Decodes had their last token when this step began, but for those that paused since."""
        plan, end_s = run.plan, run.end_s
        followed = plan.num_decodes - len(plan.returning)
        if followed:
            self._add_gap(run.durations_s[0], followed)
        for request in plan.returning:
            self._add_gap(end_s - request.last_token_s, 1)
        for chunk in plan.chunks:
            if chunk.samples and chunk.request.first_token_s != end_s:
                self._add_gap(end_s - chunk.request.last_token_s, 1)

    def _add_gap(self, gap_s: float, count: int) -> None:
        self._gap_s.append(gap_s)
        self._gap_counts.append(count)

    def _merge_gaps(self) -> None:
        gaps, where = np.unique(np.array(self._gap_s), return_inverse=True)
        counts = np.bincount(where, weights=np.array(self._gap_counts), minlength=len(gaps))
        self._gap_s = array("d", gaps.tobytes())
        self._gap_counts = array("d", counts.tobytes())
        self._gap_limit = max(MOST_GAPS, 2 * len(gaps))
