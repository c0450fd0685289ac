"""The figures behind the dashboard: kept as sums while the engine works, made into a picture a few times a second."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from simserve.engines.base import Engine
from simserve.engines.controls import HasReplicas, Paced, Sleeps
from simserve.engines.live_replica import LiveReplica
from simserve.engines.reports import Arrival, Ending, StepReport
from simserve.metrics.rolling import RollingDurations
from simserve.server.clocks import lateness_ms

HISTORY_POINTS = 480
"""Two minutes, at four points a second."""

RATE_POINTS = 4
"""Rates are over so many points: a second."""

STEPS_KEPT = 120
EVENTS_KEPT = 100
PERCENTILES = (50, 90, 99)
ENDINGS = {"abort": "aborted", "error": "failed"}


class _Sums(NamedTuple):
    """What was counted up to a point in simulated time."""

    clock_s: float
    output_tokens: int
    prefill_tokens: int
    ended: int


class Feed:
    """Observes ``engine``; see :class:`simserve.engines.reports.EngineObserver`. Times are simulated.

    Call :meth:`tick` at even distances while anybody looks; :attr:`history` then has the last points.
    """

    def __init__(self, engine: Engine) -> None:
        self.history: deque[dict[str, object]] = deque(maxlen=HISTORY_POINTS)
        self._engine = engine
        self._ttft, self._itl = RollingDurations(), RollingDurations()
        self._output_tokens = self._prefill_tokens = self._prompt_tokens = self._cached_tokens = self._ended = 0
        self._sums: deque[_Sums] = deque(maxlen=RATE_POINTS + 1)
        self._steps: deque[tuple[float, float, int, int]] = deque(maxlen=STEPS_KEPT)
        self._events: deque[tuple[float, str, str, str]] = deque(maxlen=EVENTS_KEPT)

    def arrived(self, arrival: Arrival) -> None:
        self._events.append((arrival.time_s, "arrived", arrival.request_id, f"{_tokens(arrival.input_tokens)} in"))

    def step_done(self, step: StepReport) -> None:
        duration_ms = (step.end_s - step.start_s) * 1e3
        self._steps.append((step.end_s, duration_ms, step.decodes, step.prefill_tokens))
        self._output_tokens += step.output_tokens
        self._prefill_tokens += step.prefill_tokens
        for gap_s, count in step.gaps:
            self._itl.add(gap_s, count)
        for first in step.first_tokens:
            self._ttft.add(first.ttft_s)
            self._prompt_tokens += first.input_tokens
            self._cached_tokens += first.cached_tokens
        if step.preempted:
            self._events.append((step.end_s, "preempted", "", f"{step.preempted} for want of KV blocks"))

    def ended(self, ending: Ending) -> None:
        self._ended += 1
        seconds = ending.time_s - ending.arrival_s
        what = ENDINGS.get(ending.finish_reason, "finished")
        detail = f"{_tokens(ending.output_tokens)} out, {seconds:.2f} s"
        self._events.append((ending.time_s, what, ending.request_id, detail))

    def tick(self) -> dict[str, object]:
        """How things stand now, with the steps and events since the last tick."""
        point = self._point()
        self.history.append(point)
        steps, events = list(self._steps), list(self._events)
        self._steps.clear()
        self._events.clear()
        return {"points": [point], "steps": steps, "events": events, **self._state()}

    def everything(self) -> dict[str, object]:
        """What somebody needs who begins to look: the history there is, and what the engine is."""
        return {"about": self._engine.describe(), "points": list(self.history), "steps": [], "events": []} | (
            self._state()
        )

    def _point(self) -> dict[str, object]:
        now = self._engine.status()
        sums = _Sums(now.clock_s, self._output_tokens, self._prefill_tokens, self._ended)
        self._sums.append(sums)
        before = self._sums[0]
        passed_s = sums.clock_s - before.clock_s
        per_s = 1 / passed_s if passed_s > 0 else 0.0
        return {
            "output_per_s": (sums.output_tokens - before.output_tokens) * per_s,
            "prefill_per_s": (sums.prefill_tokens - before.prefill_tokens) * per_s,
            "requests_per_s": (sums.ended - before.ended) * per_s,
            "running": now.running_requests,
            "waiting": now.waiting_requests,
            "kv_used": now.kv_blocks_used / max(now.kv_blocks_total, 1),
            "ttft_ms": _percentiles_ms(self._ttft, PERCENTILES),
            "itl_ms": _percentiles_ms(self._itl, PERCENTILES),
        }

    def _state(self) -> dict[str, object]:
        now, engine = self._engine.status(), self._engine
        state: dict[str, object] = {
            "clock_s": now.clock_s,
            "completed": now.completed_requests,
            "aborted": now.aborted_requests,
            "kv_blocks": [now.kv_blocks_used, now.kv_blocks_total],
            "cache_hits": self._cached_tokens / self._prompt_tokens if self._prompt_tokens else 0.0,
            "failure": now.failure,
        }
        if isinstance(engine, Paced):
            scale = engine.clock.time_scale
            state["time_scale"] = "inf" if scale == math.inf else scale
            state["paused"] = engine.clock.is_paused
            state["lateness_ms"] = lateness_ms(engine.punctuality)
        if isinstance(engine, HasReplicas):
            state["replicas"] = [_replica(replica) for replica in engine.replicas]
        if isinstance(engine, Sleeps):
            state["asleep"] = engine.sleep_level is not None
        return state


def _replica(replica: LiveReplica) -> list[object]:
    """Its name, what it does, requests that run and that wait, and the share of its KV blocks in use."""
    now = replica.status()
    used = now.kv_blocks_used / now.kv_blocks_total
    return [replica.name, replica.state, now.running_requests, now.waiting_requests, used]


def _percentiles_ms(durations: RollingDurations, percentiles: Sequence[int]) -> list[float | None]:
    found = [durations.recent_percentile(percent) for percent in percentiles]
    return [None if duration_s is None else duration_s * 1e3 for duration_s in found]


def _tokens(count: int) -> str:
    return "1 token" if count == 1 else f"{count:,} tokens"
