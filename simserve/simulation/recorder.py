"""Turns the runs of a replica into columns: one row per request, the pooled gaps between tokens, and the totals."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import cast

import numpy as np
import numpy.typing as npt

from simserve.latency import StepTimer
from simserve.metrics.records import FINISHED, REJECTED, Records, RunTotals, TokenGaps
from simserve.scheduling import Request, Scheduler
from simserve.simulation.replica import Run

REQUEST_COLUMNS = (
    "row", "arrival_s", "scheduled_s", "first_token_s", "finish_s", "input_tokens", "output_tokens", "cached_tokens",
    "preemptions", "status",
)  # fmt: skip

RUN_COLUMNS = (
    "steps", "decodes", "context_tokens", "prefill_tokens", "prefill_pairs", "prefill_kv_tokens", "sampled", "batch",
    "followed", "start_s", "end_s", "gap_s",
)  # fmt: skip

RUNS_PER_FOLD = 1 << 16
"""Runs noted before they are summed up: a run costs one line of numbers, and a long simulation no memory."""

RUNS_PER_REPORT = 1 << 10
"""How often progress is told: some ten times a second."""


class Recorder:
    """Observes one replica; ``records()`` and ``totals()`` once the run is over.

    ``on_progress`` is called now and then with (requests done, simulated seconds).
    """

    def __init__(
        self, scheduler: Scheduler, timer: StepTimer, on_progress: Callable[[int, float], None] | None = None
    ) -> None:
        self.done_requests = 0
        self._scheduler = scheduler
        self._timer = timer
        self._on_progress = on_progress
        self._runs_seen = 0
        self._requests = array("d")
        self._runs = array("d")
        self._durations_s = array("d")
        """Of each step of the noted runs that have more than one, as their tokens were sent."""
        self._late_gaps_s = array("d")
        self._gaps = TokenGaps(np.zeros(0), np.zeros(0, dtype=np.int64))
        self._steps = self._prefill_tokens = 0
        self._busy_s = self._running_s = self._flops = self._bytes = 0.0

    def run_done(self, run: Run, finished: list[Request]) -> None:
        """Note a run; see :class:`simserve.simulation.replica.StepObserver`."""
        plan = run.plan
        steps, decodes, chunks = plan.repeat, plan.num_decodes, plan.chunks
        followed = decodes - plan.padding - len(plan.returning)
        pairs = kv_tokens = 0.0
        gaps_s = run.durations_s if run.gaps_s is None else run.gaps_s
        if steps > 1:
            if isinstance(gaps_s, list):
                self._durations_s.fromlist(gaps_s)
            else:
                self._durations_s.frombytes(gaps_s.tobytes())
        else:
            for chunk in chunks:
                pairs += chunk.tokens * (chunk.context_tokens + (chunk.tokens + 1) / 2)
                kv_tokens += chunk.tokens + chunk.context_tokens
                if chunk.samples and chunk.request.first_token_s != run.sent_s:
                    self._late_gaps_s.append(run.sent_s - chunk.request.last_token_s)
            for request in plan.returning:
                self._late_gaps_s.append(run.sent_s - request.last_token_s)
            for stall in plan.resuming:
                self._late_gaps_s.extend([run.sent_s - stall.last_token_s] * stall.count)
                followed -= stall.count
        self._runs.extend(
            (
                steps, decodes, plan.decode_context_tokens, plan.prefill_tokens, pairs, kv_tokens,
                decodes + plan.num_sampled_chunks, decodes - plan.padding + len(chunks), followed,
                run.start_s, run.end_s, gaps_s[0],
            )
        )  # fmt: skip
        for request in finished:
            self.finish(request, FINISHED)
        self._runs_seen += 1
        if self._runs_seen % RUNS_PER_REPORT == 0:
            if self._on_progress is not None:
                self._on_progress(self.done_requests, run.end_s)
            if self._runs_seen % RUNS_PER_FOLD == 0:
                self._fold()

    def finish(self, request: Request, status: int) -> None:
        """Write the row of a request that has ended: finished, aborted or rejected."""
        self.done_requests += 1
        produced = request.produced_tokens if status != REJECTED else 0
        self._requests.extend(
            (
                cast(int, request.request_id), request.arrival_s, request.scheduled_s, request.first_token_s,
                request.finish_s, request.input_tokens, produced, request.cached_tokens, request.preemptions, status,
            )
        )  # fmt: skip

    def records(self) -> Records:
        """All rows in order of arrival."""
        self._fold()
        table = np.frombuffer(self._requests, dtype=np.float64).reshape(-1, len(REQUEST_COLUMNS))
        table = table[np.argsort(table[:, 0], kind="stable")]
        column = {name: np.ascontiguousarray(table[:, index]) for index, name in enumerate(REQUEST_COLUMNS)}
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
            gaps=self._gaps,
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

    def _fold(self) -> None:
        """Sum up the noted runs and merge equal gaps."""
        table = np.frombuffer(self._runs, dtype=np.float64).reshape(-1, len(RUN_COLUMNS))
        column = {name: table[:, index] for index, name in enumerate(RUN_COLUMNS)}
        steps, busy_s = column["steps"], column["end_s"] - column["start_s"]
        self._steps += int(steps.sum())
        self._busy_s += float(busy_s.sum())
        self._running_s += float((busy_s * column["batch"]).sum())
        self._prefill_tokens += int(column["prefill_tokens"].sum())
        work = self._timer.total_work(
            steps,
            column["decodes"],
            column["context_tokens"],
            column["prefill_tokens"],
            column["prefill_pairs"],
            column["prefill_kv_tokens"],
            column["sampled"],
        )
        self._flops += work.flops
        self._bytes += work.bytes_moved
        self._fold_gaps(steps.astype(np.int64), column["gap_s"], column["followed"].astype(np.int64))
        del table, column, steps, busy_s
        self._runs, self._durations_s, self._late_gaps_s = array("d"), array("d"), array("d")

    def _fold_gaps(
        self, steps: npt.NDArray[np.int64], gap_s: npt.NDArray[np.float64], followed: npt.NDArray[np.int64]
    ) -> None:
        """A decode's gap is that of its step: it had its last token when the step began, unless it paused."""
        alone = (steps == 1) & (followed > 0)
        many = steps > 1
        late = np.array(self._late_gaps_s)
        gaps = np.concatenate([self._gaps.gap_s, gap_s[alone], np.array(self._durations_s), late])
        counts = [self._gaps.count, followed[alone], np.repeat(followed[many], steps[many]), np.ones(len(late))]
        merged, where = np.unique(gaps, return_inverse=True)
        total = np.bincount(where, weights=np.concatenate(counts), minlength=len(merged))
        self._gaps = TokenGaps(merged, total.astype(np.int64))
