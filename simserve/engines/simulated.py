"""The simulation on the wall clock: tokens leave when the simulated hardware would have let them.

One task, the pacer, ties the two clocks together: ``simulated = (wall - start) x time_scale``. It steps the simulation
up to now, hands each finished step's tokens to their streams, and sleeps until the next step ends or somebody asks
for something. Handlers never step the simulation: they leave a note and wake the pacer.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from dataclasses import asdict

import simpy

from simserve.config import EngineOptions
from simserve.engines.base import EngineStatus, GenerationRequest, RequestTiming
from simserve.engines.streams import TokenStream
from simserve.errors import RequestError
from simserve.hardware import HardwareProfile
from simserve.models import ModelSpec
from simserve.scheduling import Request
from simserve.simulation import EngineSetup, Replica, Run, prepare
from simserve.simulation.arrivals import Moment
from simserve.simulation.simulate import describe, new_front_end
from simserve.workload import block_hashes

SLICE_S = 0.002
"""Longest stretch of stepping before other tasks of the event loop get their turn."""

INLINE_HASH_TOKENS = 8192
"""Longer prompts are hashed in a thread: about a millisecond of hashing is all that the event loop is asked to bear."""


def simulated_engine(
    model: ModelSpec, hardware: HardwareProfile, options: EngineOptions, time_scale: float
) -> SimulatedEngine:
    """An engine that answers with the timing of ``model`` on ``hardware``; raises like :func:`prepare`."""
    return SimulatedEngine(prepare(model, hardware, options), time_scale)


class SimulatedEngine:
    """See :class:`simserve.engines.base.Engine`; ``time_scale`` 10 is ten times faster than real, ``inf`` at once."""

    def __init__(self, setup: EngineSetup, time_scale: float) -> None:
        self._setup = setup
        self._time_scale = time_scale
        self._env = simpy.Environment()
        self._scheduler = setup.new_scheduler()
        self._front_end = new_front_end(setup, self._env, self)
        self._replica = Replica(
            self._env,
            self._scheduler,
            setup.timer,
            self._front_end or self,
            async_scheduling=setup.async_scheduling,
            list_decodes=True,
        )
        if self._front_end is not None:
            self._front_end.connect(self._replica, self._replica.submit)
        self._door = self._front_end or self._replica
        self._streams: dict[str, tuple[GenerationRequest, TokenStream]] = {}
        self._arrivals: deque[tuple[Request, float]] = deque()
        self._aborts: deque[str] = deque()
        self._note = asyncio.Event()
        self._pacer: asyncio.Task[None] | None = None
        self._hashing: set[asyncio.Task[None]] = set()
        self._start_wall_s = 0.0
        self._completed = self._aborted = self._preemptions = 0

    @property
    def max_model_len(self) -> int:
        return self._setup.limits.max_model_len

    def describe(self) -> dict[str, object]:
        """Labels of the simulated engine; see :class:`simserve.metrics.records.RunDescription`."""
        return {**asdict(describe(self._setup, "live")), "engine": "simulated", "time_scale": self._time_scale}

    async def start(self) -> None:
        """Start both clocks at 0."""
        self._start_wall_s = time.monotonic()
        self._pacer = asyncio.create_task(self._pace(), name="pacer")

    async def stop(self) -> None:
        """Stop the clocks and end every open stream with reason "abort"."""
        if self._pacer:
            self._pacer.cancel()
            await asyncio.gather(self._pacer, *self._hashing, return_exceptions=True)
        for _, stream in self._streams.values():
            stream.finish("abort", self._env.now)
        self._streams.clear()

    def submit(self, request: GenerationRequest) -> TokenStream:
        """Queue a sequence now; see :class:`simserve.engines.base.Engine`."""
        prompt_tokens = len(request.prompt_token_ids)
        if prompt_tokens >= self.max_model_len:
            raise RequestError(
                f"the prompt has {prompt_tokens} tokens and the engine's longest sequence is {self.max_model_len}"
            )
        if request.request_id in self._streams:
            raise RequestError(f"request id {request.request_id} is in use; give each request its own")
        stream = TokenStream(on_close=lambda: self._abort(request.request_id))
        self._streams[request.request_id] = (request, stream)
        arrival_s = self._clock_s()
        if self._scheduler.limits.prefix_caching and prompt_tokens > INLINE_HASH_TOKENS:
            task = asyncio.create_task(self._enqueue_long(request, arrival_s))
            self._hashing.add(task)
            task.add_done_callback(self._hashing.discard)
        else:
            self._enqueue(request, self._prefix_units(request), arrival_s)
        return stream

    def status(self) -> EngineStatus:
        """See :class:`simserve.engines.base.EngineStatus`."""
        blocks = self._scheduler.blocks
        waiting = len(self._scheduler.waiting) + len(self._arrivals) + len(self._hashing)
        if self._front_end is not None:
            waiting += self._front_end.ingesting_requests
        return EngineStatus(
            clock_s=self._clock_s(),
            waiting_requests=waiting,
            running_requests=len(self._scheduler.running),
            completed_requests=self._completed,
            aborted_requests=self._aborted,
            steps=self._scheduler.steps,
            inflight_batches=int(self._replica.step_in_flight),
            kv_blocks_total=blocks.usable_blocks,
            kv_blocks_used=blocks.used_blocks,
            kv_block_bytes=self._setup.block_bytes * self._setup.options.tensor_parallel_size,
            extra={"preemptions": self._preemptions},
        )

    def run_done(self, run: Run, finished: list[Request]) -> None:
        """Hand out a step's tokens, now or when the front end has sent them.

        See :class:`simserve.simulation.replica.StepObserver`.
        """
        self._preemptions += len(run.plan.preempted)
        sampled, sent_s = run.plan.sampled, run.sent_s
        if run.lag_s:
            Moment(self._env, sent_s, lambda _: self._hand_out(sampled, finished, sent_s))
        else:
            self._hand_out(sampled, finished, sent_s)

    def _hand_out(self, sampled: list[Request], finished: list[Request], sent_s: float) -> None:
        for request in sampled:
            entry = self._streams.get(str(request.request_id))
            if entry:
                entry[1].push(sent_s)
        for request in finished:
            self._completed += 1
            entry = self._streams.pop(str(request.request_id), None)
            if entry:
                cut = request.produced_tokens >= entry[0].max_tokens
                entry[1].finish("length" if cut else "stop", sent_s, _timing(request))

    async def _pace(self) -> None:
        while True:
            self._note.clear()
            self._take_notes()
            await self._catch_up()
            if self._arrivals or self._aborts:
                continue
            next_s = self._env.peek()
            handle = None
            if next_s < math.inf:
                delay_s = (next_s - self._clock_s()) / self._time_scale
                handle = asyncio.get_running_loop().call_later(max(0.0, delay_s), self._note.set)
            await self._note.wait()
            if handle:
                handle.cancel()

    async def _catch_up(self) -> None:
        """Run every event that is due, letting other tasks in after each slice."""
        slice_end_s = time.monotonic() + SLICE_S
        while self._env.peek() <= self._clock_s():
            self._env.step()
            if time.monotonic() >= slice_end_s:
                await asyncio.sleep(0)
                self._take_notes()
                slice_end_s = time.monotonic() + SLICE_S

    def _take_notes(self) -> None:
        """Let in what handlers asked for: aborts at once, arrivals at the time at which they came."""
        while self._aborts:
            self._aborted += 1
            self._door.abort(self._aborts.popleft())
        while self._arrivals:
            request, arrival_s = self._arrivals.popleft()
            if request.request_id not in self._streams:
                continue  # its client hung up before it was let in
            while self._env.peek() < arrival_s:
                self._env.step()
            if arrival_s > self._env.now:
                self._env.run(until=arrival_s)
            request.arrival_s = arrival_s
            self._door.submit(request)

    def _clock_s(self) -> float:
        """Simulated seconds now; at infinite scale, always those of the next event."""
        if math.isinf(self._time_scale):
            return self._env.now if self._env.peek() == math.inf else self._env.peek()
        return (time.monotonic() - self._start_wall_s) * self._time_scale

    def _prefix_units(self, request: GenerationRequest) -> list[int]:
        if not self._scheduler.limits.prefix_caching:
            return []
        return block_hashes(request.prompt_token_ids, self._scheduler.limits.block_size, request.cache_salt)

    async def _enqueue_long(self, request: GenerationRequest, arrival_s: float) -> None:
        units = await asyncio.to_thread(self._prefix_units, request)
        if request.request_id in self._streams:
            self._enqueue(request, units, arrival_s)

    def _enqueue(self, request: GenerationRequest, units: list[int], arrival_s: float) -> None:
        length = request.max_tokens if request.output_tokens is None else request.output_tokens
        sequence = Request(
            request.request_id,
            len(request.prompt_token_ids),
            min(length, request.max_tokens),
            units=units,
            unit_tokens=self._scheduler.limits.block_size,
            priority=request.priority,
        )
        self._arrivals.append((sequence, arrival_s))
        self._note.set()

    def _abort(self, request_id: str) -> None:
        self._streams.pop(request_id, None)
        self._aborts.append(request_id)
        self._note.set()


def _timing(request: Request) -> RequestTiming:
    return RequestTiming(
        arrival_s=request.arrival_s,
        scheduled_s=request.scheduled_s,
        first_token_s=request.first_token_s,
        finish_s=request.finish_s,
        cached_tokens=request.cached_tokens,
        preemptions=request.preemptions,
    )
