"""The processes between clients and a replica: they take requests in and send tokens out, and can be too slow for both.

Each request waits its turn, is read and tokenised, and only then queued at the engine; each step's tokens wait theirs
after the step, while the engine goes on with the next: no engine waits for its front end. What is in the queue is never
looked at, only when it will be empty: a request costs one event more, a run of steps none.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Hashable, Sequence
from functools import partial

import numpy as np
import simpy

from simserve.latency.front_end import FrontEndCosts
from simserve.scheduling import Request, StepPlan
from simserve.simulation.arrivals import Moment
from simserve.simulation.replica import Floats, Replica, Run, StepObserver


class Processes:
    """``count`` equal processes with one queue, first come first served; their work is taken to spread evenly."""

    def __init__(self, count: int) -> None:
        self.busy_s = 0.0
        """For how long each has worked so far."""
        self._count = count
        self._free_s = 0.0

    def take(self, now_s: float, work_s: float) -> float:
        """When one process will be through with ``work_s`` that comes now."""
        begin_s = max(now_s, self._free_s)
        self._free_s = begin_s + work_s / self._count
        self.busy_s += work_s / self._count
        return begin_s + work_s

    def spread(self, times_s: Floats | Sequence[float], work_s: float, apart_s: float) -> float | Floats:
        """How long after each of ``times_s``, ``apart_s`` apart at least, the ``work_s`` that comes then is done.

        All processes share it. One number where it is the same for all.
        """
        share_s, count = work_s / self._count, len(times_s)
        self.busy_s += share_s * count
        waiting_s = self._free_s - float(times_s[0])
        if count == 1 or (waiting_s <= 0.0 and share_s <= apart_s):
            lag_s = max(waiting_s, 0.0) + share_s
            self._free_s = float(times_s[-1]) + lag_s
            return lag_s
        times = np.asarray(times_s)
        before = share_s * np.arange(count)
        done = np.maximum(np.maximum.accumulate(times - before), self._free_s) + (before + share_s)
        self._free_s = float(done[-1])
        lags_s: Floats = done - times
        return lags_s


class FrontEnd:
    """Takes requests in the place of a replica, and observes it in the place of ``observer``.

    ``observer`` is told of the same runs, with the times at which tokens were sent (:attr:`Run.sent_s`), and requests
    have these times too.
    """

    def __init__(self, env: simpy.Environment, costs: FrontEndCosts, processes: int, observer: StepObserver) -> None:
        self._env = env
        self._costs = costs
        self._observer = observer
        self._input = Processes(processes)
        self._output = Processes(1) if costs.own_output_process else self._input
        self._ingesting: dict[Hashable, Request] = {}
        self._sent_steps = 0
        """Of the run in flight: those whose tokens are in the queue."""
        self._sent_lags_s: list[Floats] = []
        """Of those steps: how long after their end their tokens are sent."""
        self._lag_s = 0.0
        """Of the last step of the last run."""

    @property
    def busy_s(self) -> float:
        """For how long its busiest process has worked so far."""
        return max(self._input.busy_s, self._output.busy_s)

    @property
    def ingesting_requests(self) -> int:
        """Requests that the engine does not have yet."""
        return len(self._ingesting)

    def connect(self, replica: Replica, admit: Callable[[Request], None]) -> None:
        """Stand before ``replica``; ``admit`` queues a request there."""
        self._replica = replica
        self._admit = admit

    def submit(self, request: Request) -> None:
        """Take in ``request``, which comes now."""
        now_s = self._env.now
        if self._output is self._input:
            self._send_until(now_s)
        self._ingesting[request.request_id] = request
        ready_s = self._input.take(now_s, self._costs.ingest_s(request.input_tokens))
        Moment(self._env, ready_s, partial(self._pass_on, request))

    def abort(self, request_id: Hashable) -> None:
        """Drop a request, wherever it is; what it cost so far was spent."""
        if self._ingesting.pop(request_id, None) is None:
            self._replica.abort(request_id)

    def halt(self) -> list[Request]:
        """Stop for ever: the requests that the engine does not have yet, in order of coming."""
        requests = list(self._ingesting.values())
        self._ingesting.clear()
        return requests

    def run_done(self, run: Run, finished: list[Request]) -> None:
        """Send out what ``run`` made; see :class:`simserve.simulation.replica.StepObserver`."""
        count, already = run.steps, self._sent_steps
        lags_s = self._send(run, count)
        if already:
            lags_s = np.concatenate([*self._sent_lags_s, np.full(count - already, lags_s)])
            self._sent_lags_s = []
        run.gaps_s = _gaps(run.durations_s, lags_s, self._lag_s)
        run.lag_s = self._lag_s = lags_s if isinstance(lags_s, float) else float(lags_s[-1])
        if run.lag_s:
            for chunk in run.plan.chunks:
                if chunk.samples and chunk.request.first_token_s == run.end_s:
                    chunk.request.first_token_s = run.sent_s
            for request in finished:
                request.finish_s = run.sent_s
        self._sent_steps = 0
        self._observer.run_done(run, finished)

    def _pass_on(self, request: Request, _: simpy.Event) -> None:
        if self._ingesting.pop(request.request_id, None) is not None:
            self._admit(request)

    def _send_until(self, now_s: float) -> None:
        """Queue the tokens of steps that ended before now, as a request that comes now has to wait for them."""
        run = self._replica.run_in_flight
        if run is not None and run.steps > 1:
            already, ended = self._sent_steps, bisect_left(run.ends_s, now_s)
            if ended > already:
                self._sent_lags_s.append(np.full(ended - already, self._send(run, ended)))

    def _send(self, run: Run, steps: int) -> float | Floats:
        """Queue what is not queued yet of the first ``steps`` steps' tokens; how long after each step they are sent."""
        first, self._sent_steps = self._sent_steps, steps
        if first == steps:
            return 0.0  # of none: the run was cut short by a failure
        work_s = sent_tokens(run.plan) * self._costs.output_token_s
        # Of successive steps of the same decodes, whose contexts grow, none takes less than the one before.
        shortest_s = run.durations_s[first + 1] if steps - first > 1 else math.inf
        times_s = run.ends_s if first == 0 and steps == run.steps else run.ends_s[first:steps]
        return self._output.spread(times_s, work_s, shortest_s)


def sent_tokens(plan: StepPlan) -> int:
    """Tokens that each step of ``plan`` yields to somebody."""
    return plan.num_sampled - plan.padding


def _gaps(
    durations_s: Floats | list[float], lags_s: float | Floats, lag_before_s: float
) -> Floats | list[float] | None:
    """Between a step's tokens as they were sent, and those of the step before; None if they are as the step is long."""
    if not isinstance(lags_s, float):
        apart_s: Floats = np.array(durations_s) + np.diff(lags_s, prepend=lag_before_s)
        return apart_s.clip(min=0.0)
    if lags_s == lag_before_s:
        return None
    gaps_s = durations_s.copy()
    gaps_s[0] = max(gaps_s[0] + (lags_s - lag_before_s), 0.0)
    return gaps_s
