"""One simulated replica on the wall clock."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import asdict
from typing import cast

import simpy

from simserve.config import EngineOptions
from simserve.engines.adapters import lora_status
from simserve.engines.base import EngineStatus
from simserve.engines.clock import AT_ONCE, NEVER
from simserve.engines.handout import LiveRequest
from simserve.engines.paced import PacedEngine
from simserve.engines.reports import StepReport
from simserve.engines.step_reports import finished, step_report
from simserve.hardware import HardwareProfile
from simserve.models import ModelSpec
from simserve.scheduling import Request
from simserve.scheduling.fetching import FetchingVllmV1
from simserve.simulation import EngineSetup, Run, prepare
from simserve.simulation.arrivals import Moment
from simserve.simulation.features.adapter_replica import AdapterReplica
from simserve.simulation.features.build import new_replica
from simserve.simulation.features.counts import Counts
from simserve.simulation.simulate import describe, new_front_end


def simulated_engine(
    model: ModelSpec, hardware: HardwareProfile, options: EngineOptions, time_scale: float
) -> SimulatedEngine:
    """An engine that answers with the timing of ``model`` on ``hardware``; raises like :func:`prepare`."""
    return SimulatedEngine(prepare(model, hardware, options), time_scale)


class SimulatedEngine(PacedEngine):
    """One replica."""

    def __init__(self, setup: EngineSetup, time_scale: float) -> None:
        env, scheduler = simpy.Environment(), setup.new_scheduler()
        limits = scheduler.limits
        super().__init__(
            env,
            time_scale,
            most_tokens=scheduler.most_tokens,
            block_size=limits.block_size,
            prefix_caching=limits.prefix_caching,
        )
        self._setup = setup
        self._has_adapters = setup.adapters is not None
        self._scheduler = scheduler
        self._preemptions = 0
        self._handed_out: Run | None = None
        self._front_end = new_front_end(setup, env, self)
        counts = Counts(of_each=False)
        self._replica = new_replica(setup, env, scheduler, self._front_end or self, counts, list_decodes=True)
        if self._front_end is not None:
            self._front_end.connect(self._replica, self._replica.submit)
        self._door = self._front_end or self._replica

    @property
    def max_model_len(self) -> int:
        return self._setup.limits.max_model_len

    def describe(self) -> dict[str, object]:
        """Labels of the simulated engine; see :class:`simserve.metrics.records.RunDescription`."""
        return {**asdict(describe(self._setup, "live")), "engine": "simulated", "time_scale": self.clock.time_scale}

    def status(self) -> EngineStatus:
        """See :class:`simserve.engines.base.EngineStatus`."""
        blocks = self._scheduler.blocks
        waiting = len(self._scheduler.waiting) + len(self._arrivals) + len(self._hashing)
        if self._front_end is not None:
            waiting += self._front_end.ingesting_requests
        if isinstance(self._scheduler, FetchingVllmV1):
            waiting += self._scheduler.fetching_requests
        return EngineStatus(
            clock_s=self.clock.now_s(),
            waiting_requests=waiting,
            running_requests=len(self._scheduler.running),
            completed_requests=self._completed,
            aborted_requests=self._aborted,
            steps=self._scheduler.steps,
            inflight_batches=int(self._replica.step_in_flight),
            kv_blocks_total=blocks.usable_blocks,
            kv_blocks_used=blocks.used_blocks,
            kv_block_bytes=self._setup.block_bytes * self._setup.devices,
            extra={
                "preemptions": self._preemptions,
                **lora_status(self._scheduler, self._replica, self._adapter_names),
            },
            failure=self._failure,
        )

    def reset_prefix_cache(self) -> bool:
        return self._scheduler.blocks.reset_prefix_cache()

    def _adapter_replicas(self) -> Iterable[AdapterReplica]:
        return (self._replica,) if isinstance(self._replica, AdapterReplica) else ()

    def _tokens_first(self) -> bool:
        """Hand out the tokens of a step that ends before the simulation works out what comes after it.

        Who gets one was settled when the step began, and a thousand streams need not wait for the planning of the next.
        """
        run = self._run_to_hand_out()
        if run is None:
            return False
        due_wall_s = self.clock.wall_s(run.end_s)
        if due_wall_s in (AT_ONCE, NEVER) or time.monotonic() < due_wall_s - self._lead_s(run):
            return False
        self._handed_out = run
        self._hand_out.add(cast(list[LiveRequest], run.plan.sampled), (), run.end_s, due_wall_s)
        return True

    def _next_wall_s(self) -> float:
        run = self._run_to_hand_out()
        return super()._next_wall_s() - (self._lead_s(run) if run is not None else 0.0)

    def _run_to_hand_out(self) -> Run | None:
        """The one in flight, if its end is the next event and its tokens have not been handed out."""
        run = self._replica.run_in_flight
        if run is None or run is self._handed_out or self._front_end is not None or run.end_s != self._peek():
            return None
        return run

    def _lead_s(self, run: Run) -> float:
        """By the wall's clock; see :mod:`simserve.engines.lead`."""
        step_wall_s = (run.end_s - run.last_start_s) / self.clock.time_scale
        return self._hand_out.lead.of(len(run.plan.sampled), step_wall_s)

    def run_done(self, run: Run, finished_requests: list[Request]) -> None:
        """Have a step's tokens handed out, now or when the front end has sent them, if they have not been.

        See :class:`simserve.simulation.replica.StepObserver`.
        """
        self._preemptions += len(run.plan.preempted)
        report = step_report(run) if self._observers else None
        ended = cast(list[LiveRequest], finished_requests)
        sampled = [] if run is self._handed_out else cast(list[LiveRequest], run.plan.sampled)
        sent_s = run.sent_s
        if run.lag_s:
            Moment(self._env, sent_s, lambda _: self._sent(sampled, ended, sent_s, report))
        else:
            self._sent(sampled, ended, sent_s, report)

    def _sent(
        self, sampled: list[LiveRequest], last: list[LiveRequest], sent_s: float, report: StepReport | None
    ) -> None:
        """A step's tokens are due; those in ``last`` end with them, but for who was given up meanwhile."""
        ended = [request for request in last if self._live.pop(str(request.request_id), None) is not None]
        self._hand_out.add(sampled, ended, sent_s, self.clock.wall_s(sent_s))
        self._completed += len(ended)
        if report is not None:
            endings = [finished(request) for request in ended]
            for observer in self._observers:
                observer.step_done(report)
                for ending in endings:
                    observer.ended(ending)

    def _is_quiet(self) -> bool:
        return self._replica.is_idle and self._env.peek() == math.inf  # nor is anything in a front end
