"""The simulation on the wall clock: tokens leave when the simulated hardware would have let them.

A clock ties simulated time to the wall's, a pacer has the simulation stepped up to now whenever a step is due, and each
finished step's tokens go straight to their streams. Handlers never step the simulation: they leave a note and wake
the pacer.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import asdict
from typing import Protocol, cast

import simpy

from simserve.config import EngineOptions
from simserve.engines.adapters import lora_status
from simserve.engines.base import EngineStatus, GenerationRequest
from simserve.engines.clock import AT_ONCE, NEVER, SimulatedClock
from simserve.engines.controls import SleepMode
from simserve.engines.handout import HandOut, LiveRequest
from simserve.engines.pacer import Pacer
from simserve.engines.reports import Arrival, EngineObserver, StepReport
from simserve.engines.sleeping import Sleep
from simserve.engines.step_reports import aborted, finished, step_report
from simserve.engines.streams import TokenStream
from simserve.errors import RequestError
from simserve.hardware import HardwareProfile
from simserve.metrics.rolling import Punctuality
from simserve.models import ModelSpec
from simserve.scheduling import Request
from simserve.scheduling.fetching import FetchingVllmV1
from simserve.simulation import EngineSetup, Run, prepare
from simserve.simulation.arrivals import Moment
from simserve.simulation.features.adapter_replica import AdapterReplica
from simserve.simulation.features.build import new_replica
from simserve.simulation.features.counts import Counts
from simserve.simulation.simulate import describe, new_front_end
from simserve.workload import block_hashes

log = logging.getLogger("simserve.engines")

INLINE_HASH_TOKENS = 8192
"""Longer prompts are hashed in a thread: about a millisecond of hashing is all that the event loop is asked to bear."""


def simulated_engine(
    model: ModelSpec, hardware: HardwareProfile, options: EngineOptions, time_scale: float
) -> SimulatedEngine:
    """An engine that answers with the timing of ``model`` on ``hardware``; raises like :func:`prepare`."""
    return SimulatedEngine(prepare(model, hardware, options), time_scale)


class Door(Protocol):
    """Where the simulation takes requests in."""

    def submit(self, request: Request) -> None: ...

    def abort(self, request_id: Hashable) -> None: ...


class PacedEngine(ABC):
    """What is simulated in ``env``, on the wall clock: requests go in by the door, tokens are handed out when due.

    See :class:`simserve.engines.base.Engine` and all of :mod:`simserve.engines.controls`. ``time_scale`` 10 is ten
    times faster than real, ``inf`` at once. No sequence has more than ``most_tokens``; ``block_size`` tokens of a
    prompt are hashed together.
    """

    _door: Door

    def __init__(
        self, env: simpy.Environment, time_scale: float, *, most_tokens: int, block_size: int, prefix_caching: bool
    ) -> None:
        self.clock = SimulatedClock(time_scale)
        self._env = env
        self._peek = env.peek
        """When the next event is due."""
        self._most_tokens = most_tokens
        self._block_size = block_size
        self._prefix_caching = prefix_caching
        self._hand_out = HandOut()
        self._pacer = Pacer(self._turn, self._failed)
        self._observers: list[EngineObserver] = []
        self._live: dict[str, LiveRequest] = {}
        self._arrivals: deque[LiveRequest] = deque()
        self._aborts: deque[LiveRequest] = deque()
        self._hashing: set[asyncio.Task[None]] = set()
        self._sleep = Sleep()
        self._failure: str | None = None
        self._completed = self._aborted = 0
        self._has_adapters = False
        """Whether adapters cost anything; else they are only names."""
        self._adapter_names: dict[int, str] = {}

    @abstractmethod
    def reset_prefix_cache(self) -> bool:
        """See :class:`simserve.engines.controls.ForgetsPrefixes`."""

    @abstractmethod
    def _is_quiet(self) -> bool:
        """Whether nothing runs and nothing waits in the simulation."""

    @abstractmethod
    def _adapter_replicas(self) -> Iterable[AdapterReplica]:
        """Those that run now."""

    def _tokens_first(self) -> bool:
        """Have tokens that the next event brings handed out before it, if it is time to; whether there are any."""
        return False

    def _next_wall_s(self) -> float:
        """When, by the wall's clock, there will be something to do."""
        return self.clock.wall_s(self._peek())

    @property
    def punctuality(self) -> Punctuality:
        return self._hand_out.punctuality

    def count_punctuality_in(self, punctuality: Punctuality) -> None:
        """Count how late tokens are in ``punctuality`` from now on, which may be that of several engines."""
        self._hand_out.punctuality = punctuality

    async def start(self) -> None:
        """Start both clocks at 0."""
        self.clock.start()
        self._pacer.start()

    async def stop(self) -> None:
        """Stop the clocks and end every open stream with reason "abort"."""
        self._pacer.stop()
        await asyncio.gather(*self._hashing, return_exceptions=True)
        self._hand_out.work(math.inf)
        for request in self._live.values():
            request.stream.finish("abort", self._env.now)
        self._live.clear()

    def submit(self, request: GenerationRequest) -> TokenStream:
        """Queue a sequence now; see :class:`simserve.engines.base.Engine`."""
        prompt_tokens = len(request.prompt_token_ids)
        if prompt_tokens >= self._most_tokens:
            raise RequestError(
                f"the prompt has {prompt_tokens} tokens and the engine's longest sequence is {self._most_tokens}"
            )
        if request.request_id in self._live:
            raise RequestError(f"request id {request.request_id} is in use; give each request its own")
        stream = TokenStream(on_close=lambda: self._give_up(request.request_id))
        if self._failure is not None:
            stream.finish("error", self._env.now, error=self._failure)
            return stream
        live = LiveRequest(request, stream, arrival_s=self.clock.now_s(), unit_tokens=self._block_size)
        if request.adapter and self._has_adapters:
            live.adapter, live.adapter_name = request.adapter_number, request.adapter
            self._adapter_names[live.adapter] = live.adapter_name
        self._live[request.request_id] = live
        for observer in self._observers:
            observer.arrived(Arrival(request.request_id, live.arrival_s, prompt_tokens))
        if self._prefix_caching and prompt_tokens > INLINE_HASH_TOKENS:
            task = asyncio.create_task(self._enqueue_long(live, request))
            self._hashing.add(task)
            task.add_done_callback(self._hashing.discard)
        else:
            self._enqueue(live, self._prefix_units(request))
        return stream

    # What simserve.engines.controls asks for.

    def observe(self, observer: EngineObserver) -> None:
        self._observers.append(observer)

    def pause(self) -> None:
        self.clock.pause()
        self._pacer.wake()

    def resume(self) -> None:
        self.clock.resume()
        self._pacer.wake()

    def load_adapter(self, name: str, number: int, *, in_advance: bool = False) -> None:
        if not self._has_adapters:
            return
        self._adapter_names[number] = name
        for replica in self._adapter_replicas():
            replica.load(number, None if in_advance else self.clock.now_s())

    def set_time_scale(self, time_scale: float) -> None:
        self.clock.set_time_scale(time_scale)
        self._pacer.wake()

    @property
    def sleep_level(self) -> int | None:
        return self._sleep.level

    async def sleep(self, level: int, mode: SleepMode) -> None:
        fallen = self._sleep.begin(level)
        if mode == "abort":
            for request in list(self._live.values()):
                self._give_up(str(request.request_id))
                request.stream.finish("abort", self._env.now, stop_reason="sleep")
        self._pacer.wake()
        await fallen

    def wake_up(self, tags: Sequence[str]) -> None:
        if self._sleep.wake(tags, self.clock.now_s()):
            self._pacer.wake()

    # The simulation's side.

    def _turn(self, until_wall_s: float) -> float:
        """What is due now, in the order of simulated time; see :data:`simserve.engines.pacer.Turn`."""
        self._take_aborts()
        while self._hand_out.work(until_wall_s):
            if self._admit_next() or self._tokens_first():
                pass
            elif self.clock.is_due(self._peek()):
                self._env.step()
                self.clock.reached(self._env.now)
            else:
                self._fall_asleep()
                next_wall_s = self._next_wall_s()
                return next_wall_s if self._hand_out.prepare(min(next_wall_s, until_wall_s)) else AT_ONCE
            if time.monotonic() >= until_wall_s:
                break
        return AT_ONCE

    def _admit_next(self) -> bool:
        """Let in the first of the arrivals if it comes before the next event; whether there was one."""
        if not self._arrivals or not self._sleep.is_awake:
            return False
        request, now_s = self._arrivals[0], self._env.now
        time_s = max(request.arrival_s, self._sleep.woke_s, now_s)
        if time_s > self._peek():
            return False
        self._arrivals.popleft()
        if self._live.get(str(request.request_id)) is request:  # else its client hung up meanwhile
            if time_s > now_s:
                self._env.run(until=time_s)
            self._door.submit(request)
        return True

    def _take_aborts(self) -> None:
        while self._aborts:
            request = self._aborts.popleft()
            self._aborted += 1
            self._door.abort(request.request_id)
            for observer in self._observers:
                observer.ended(aborted(request, self.clock.now_s()))

    def _fall_asleep(self) -> None:
        """Tell those who wait for it that nothing runs any more, if so."""
        if self._sleep.is_falling and self._is_quiet():
            if self._sleep.level:
                self.reset_prefix_cache()
            self._sleep.fallen()

    def _failed(self, error: Exception) -> None:
        log.error("the simulation failed; no request can be served any more", exc_info=error)
        self._failure = f"the simulation failed ({type(error).__name__}: {error}); the server's log says where"
        for request in self._live.values():
            request.stream.finish("error", self._env.now, error=self._failure)
        self._live.clear()
        self._sleep.fallen()

    def _prefix_units(self, request: GenerationRequest) -> list[int]:
        if not self._prefix_caching:
            return []
        return block_hashes(request.prompt_token_ids, self._block_size, request.cache_salt)

    async def _enqueue_long(self, live: LiveRequest, request: GenerationRequest) -> None:
        self._enqueue(live, await asyncio.to_thread(self._prefix_units, request))

    def _enqueue(self, request: LiveRequest, units: list[int]) -> None:
        request.units = units
        self._arrivals.append(request)
        self._pacer.wake()

    def _give_up(self, request_id: str) -> None:
        request = self._live.pop(request_id, None)
        if request is not None:
            self._aborts.append(request)
            self._pacer.wake()


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
