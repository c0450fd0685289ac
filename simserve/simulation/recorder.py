"""Turns the runs of a replica into columns: one row per request, the pooled gaps between tokens, and the totals."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from simserve.latency import StepTimer, StepWork
from simserve.latency.pipeline import PipelineTimer
from simserve.latency.step_timer import SHORT_RUN_STEPS
from simserve.metrics.records import FINISHED, NEVER_ADMITTED, Records, RunTotals, TokenGaps
from simserve.scheduling import Request, Scheduler
from simserve.simulation.replica import Run

Columns = dict[str, npt.NDArray[np.float64]]

REQUEST_COLUMNS = (
    "row", "arrival_s", "scheduled_s", "first_token_s", "finish_s", "input_tokens", "output_tokens", "cached_tokens",
    "preemptions", "status",
)  # fmt: skip

DECODE_COLUMNS = ("steps", "decodes", "context_tokens", "followed", "busy_s")
"""Of a run of decodes alone, which all had a token in the step before; ``followed`` are those that somebody gets."""

MIXED_COLUMNS = (
    "decodes", "context_tokens", "prefill_tokens", "prefill_pairs", "prefill_kv_tokens", "sampled", "batch", "followed",
    "busy_s", "gap_s",
)  # fmt: skip
"""Of any other run, which is one step."""

WORK_COLUMNS = (
    "steps", "decodes", "context_tokens", "prefill_tokens", "prefill_pairs", "prefill_kv_tokens", "sampled",
)  # fmt: skip
"""What :meth:`StepTimer.total_work` takes."""

NO_WORK = StepWork(0.0, 0.0)

# Packing a row costs a quarter of what it costs to extend an array by it.
REQUEST_ROW = struct.Struct(f"{len(REQUEST_COLUMNS)}d").pack
DECODE_ROW = struct.Struct(f"{len(DECODE_COLUMNS)}d").pack
MIXED_ROW = struct.Struct(f"{len(MIXED_COLUMNS)}d").pack
GAPS = [struct.Struct(f"{steps}d").pack for steps in range(SHORT_RUN_STEPS + 1)]

RUNS_PER_FOLD = 1 << 16
"""Runs noted before they are summed up: a run costs one line of numbers, and a long simulation no memory."""

RUNS_PER_REPORT = 1 << 10
"""How often progress is told: some ten times a second."""


class Recorder:
    """Observes one replica; ``records()`` and ``totals()`` once the run is over.

    ``on_progress`` is called now and then with (requests done, simulated seconds).
    """

    def __init__(
        self, scheduler: Scheduler | None, timer: StepTimer, on_progress: Callable[[int, float], None] | None = None
    ) -> None:
        self.done_requests = 0
        self._scheduler = scheduler
        self._timer = timer
        self._on_progress = on_progress
        self._runs_seen = 0
        self._requests = bytearray()
        self._decode_runs = bytearray()
        self._mixed_runs = bytearray()
        self._gaps_s = bytearray()
        """Of each step of the noted runs of decodes alone, as their tokens were sent."""
        self._late_gaps_s = array("d")
        self._gaps = TokenGaps(np.zeros(0), np.zeros(0, dtype=np.int64))
        self._steps = self._prefill_tokens = 0
        self._busy_s = self._running_s = 0.0
        self._decode_work = self._mixed_work = NO_WORK
        self._mixed_busy_s = 0.0

    def run_done(self, run: Run, finished: list[Request]) -> None:
        """Note a run; see :class:`simserve.simulation.replica.StepObserver`."""
        plan = run.plan
        if plan.chunks or plan.returning or plan.resuming:
            self._note_mixed(run)
        else:
            steps, decodes = plan.repeat, plan.num_decodes
            busy_s = run.end_s - run.start_s
            self._decode_runs += DECODE_ROW(steps, decodes, plan.decode_context_tokens, decodes - plan.padding, busy_s)
            gaps_s = run.durations_s if run.gaps_s is None else run.gaps_s
            if isinstance(gaps_s, list):
                self._gaps_s += GAPS[steps](*gaps_s)
            else:
                self._gaps_s += gaps_s.tobytes()
        for request in finished:
            self.finish(request, FINISHED)
        self._runs_seen += 1
        if self._runs_seen % RUNS_PER_REPORT == 0:
            if self._on_progress is not None:
                self._on_progress(self.done_requests, run.end_s)
            if self._runs_seen % RUNS_PER_FOLD == 0:
                self._fold()

    def _note_mixed(self, run: Run) -> None:
        plan, late_gaps_s = run.plan, self._late_gaps_s
        gap_s = busy_s = run.end_s - run.start_s
        sent_s = run.end_s + run.lag_s
        if run.gaps_s is not None:
            gap_s = run.gaps_s[0]
        batch = plan.num_decodes - plan.padding
        followed = batch - len(plan.returning)
        pairs = kv_tokens = 0.0
        for chunk in plan.chunks:
            tokens, context = chunk.tokens, chunk.context_tokens
            pairs += tokens * (context + (tokens + 1) / 2)
            kv_tokens += tokens + context
            if chunk.samples and chunk.request.first_token_s != sent_s:
                late_gaps_s.append(sent_s - chunk.request.last_token_s)
        for request in plan.returning:
            late_gaps_s.append(sent_s - request.last_token_s)
        for stall in plan.resuming:
            late_gaps_s.extend([sent_s - stall.last_token_s] * stall.count)
            followed -= stall.count
        self._mixed_runs += MIXED_ROW(
            plan.num_decodes, plan.decode_context_tokens, plan.prefill_tokens, pairs, kv_tokens,
            plan.num_decodes + plan.num_sampled_chunks, batch + len(plan.chunks), followed, busy_s, gap_s,
        )  # fmt: skip

    def finish(self, request: Request, status: int) -> None:
        """Write the row of a request that has ended: finished, aborted or rejected."""
        self.done_requests += 1
        produced = request.produced_tokens if status not in NEVER_ADMITTED else 0
        self._requests += REQUEST_ROW(
            request.request_id, request.arrival_s, request.scheduled_s, request.first_token_s, request.finish_s,
            request.input_tokens, produced, request.cached_tokens, request.preemptions, status,
        )  # fmt: skip

    def records(self) -> Records:
        """All rows in order of arrival."""
        self._fold()
        column = _columns(self._requests, REQUEST_COLUMNS)
        order = np.argsort(column["row"], kind="stable")
        column = {name: values[order] for name, values in column.items()}
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
        served = ~np.isin(records.status, NEVER_ADMITTED)
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
            peak_kv_blocks_used=self.peak_kv_blocks(),
            mean_running_requests=self._in_batches_s() / duration_s if duration_s else 0.0,
            flops=self._decode_work.flops + self._mixed_work.flops,
            bytes_moved=self._decode_work.bytes_moved + self._mixed_work.bytes_moved,
            mixed_busy_s=self._mixed_busy_s,
            mixed_flops=self._mixed_work.flops,
            mixed_bytes_moved=self._mixed_work.bytes_moved,
        )

    def _in_batches_s(self) -> float:
        """For how long requests were running, of all together: several batches run at once in a pipeline."""
        if not isinstance(self._timer, PipelineTimer):
            return self._running_s
        column = _columns(self._requests, REQUEST_COLUMNS)
        return float(np.nansum(column["finish_s"] - column["scheduled_s"]))

    def peak_kv_blocks(self) -> int:
        """Most KV blocks in use after any step."""
        assert self._scheduler is not None
        return self._scheduler.blocks.usable_blocks - self._scheduler.least_free_blocks

    def _fold(self) -> None:
        """Sum up the noted runs and merge equal gaps."""
        quiet, mixed = _columns(self._decode_runs, DECODE_COLUMNS), _columns(self._mixed_runs, MIXED_COLUMNS)
        zeros, ones = np.zeros(len(quiet["steps"])), np.ones(len(mixed["decodes"]))
        quiet |= {name: zeros for name in MIXED_COLUMNS if name.startswith("prefill")}
        quiet |= {"sampled": quiet["decodes"], "batch": quiet["followed"]}
        mixed["steps"] = ones
        for column in (quiet, mixed):
            self._steps += int(column["steps"].sum())
            self._busy_s += float(column["busy_s"].sum())
            self._running_s += float((column["busy_s"] * column["batch"]).sum())
        self._prefill_tokens += int(mixed["prefill_tokens"].sum())
        self._mixed_busy_s += float(mixed["busy_s"].sum())
        self._decode_work = self._with_work_of(quiet, self._decode_work)
        self._mixed_work = self._with_work_of(mixed, self._mixed_work)
        self._fold_gaps(quiet, mixed)
        del quiet, mixed, column  # they hold the arrays' memory
        self._decode_runs, self._mixed_runs = bytearray(), bytearray()
        self._gaps_s, self._late_gaps_s = bytearray(), array("d")

    def _with_work_of(self, column: Columns, before: StepWork) -> StepWork:
        """``before`` and what these runs need."""
        work = self._timer.total_work(*(column[name] for name in WORK_COLUMNS))
        return StepWork(before.flops + work.flops, before.bytes_moved + work.bytes_moved)

    def _fold_gaps(self, quiet: Columns, mixed: Columns) -> None:
        """A decode's gap is that of its step: it had its last token when the step began, unless it paused."""
        late = np.array(self._late_gaps_s)
        gaps = np.concatenate([self._gaps.gap_s, np.frombuffer(self._gaps_s), mixed["gap_s"], late])
        followed = np.repeat(quiet["followed"], quiet["steps"].astype(np.int64))
        counts = np.concatenate([self._gaps.count, followed, mixed["followed"], np.ones(len(late))])
        merged, where = np.unique(gaps[counts > 0], return_inverse=True)
        total = np.bincount(where, weights=counts[counts > 0], minlength=len(merged))
        self._gaps = TokenGaps(merged, total.astype(np.int64))


def _columns(rows: bytearray, names: tuple[str, ...]) -> Columns:
    """Rows written one after another, by column."""
    table = np.frombuffer(rows, dtype=np.float64).reshape(-1, len(names))
    return {name: table[:, index] for index, name in enumerate(names)}
