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
from typing import Protocol

import simpy

from simserve.engines.base import GenerationRequest
from simserve.engines.clock import AT_ONCE, SimulatedClock
from simserve.engines.controls import SleepMode
from simserve.engines.handout import HandOut, LiveRequest
from simserve.engines.pacer import Pacer
from simserve.engines.reports import Arrival, EngineObserver
from simserve.engines.sleeping import Sleep
from simserve.engines.step_reports import aborted
from simserve.engines.streams import TokenStream
from simserve.errors import RequestError
from simserve.metrics.rolling import Punctuality
from simserve.scheduling import Request
from simserve.simulation.features.adapter_replica import AdapterReplica
from simserve.workload import block_hashes

log = logging.getLogger("simserve.engines")

INLINE_HASH_TOKENS = 8192
"""Longer prompts are hashed in a thread: about a millisecond of hashing is all that the event loop is asked to bear."""


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
