"""What some engines can do beside generating; the server looks with ``isinstance``, and says 501 where they cannot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

from simserve.engines.clock import SimulatedClock
from simserve.engines.live_replica import LiveReplica
from simserve.engines.reports import EngineObserver
from simserve.metrics.rolling import Punctuality

SleepMode = Literal["abort", "wait"]


@runtime_checkable
class Observable(Protocol):
    """Tells others what it does."""

    def observe(self, observer: EngineObserver) -> None:
        """Tell ``observer`` of everything from now on."""
        ...


@runtime_checkable
class Paced(Protocol):
    """Goes by a clock that can be held and made to go faster or slower, while all streams stay open."""

    @property
    def clock(self) -> SimulatedClock:
        """To look at; change it through the methods here, so that the engine notices."""
        ...

    @property
    def punctuality(self) -> Punctuality:
        """How late and how early tokens were handed over; empty at infinite speed, where nothing is due."""
        ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def set_time_scale(self, time_scale: float) -> None:
        """Go on at ``time_scale``, more than 0 or inf, from the simulated time that it is now."""
        ...


@runtime_checkable
class HasReplicas(Protocol):
    """Is a cluster: many engines behind one gateway. What is done to one happens at this point in simulated time."""

    @property
    def replicas(self) -> Sequence[LiveReplica]:
        """All that there may ever be, by their index."""
        ...

    def replica(self, name: str) -> LiveReplica | None:
        """The one of that name, such as ``fast/3``."""
        ...

    async def kill(self, replica: LiveReplica, down_s: float | None) -> bool:
        """Have it fail; it is back after ``down_s`` simulated seconds (None: never by itself).

        What it was doing is lost, and its requests go on elsewhere or fail. False if there is no engine to fail.
        """
        ...

    async def revive(self, replica: LiveReplica) -> bool:
        """Have it ready, with nothing cached unless it was draining; False if it is ready or starting."""
        ...

    async def drain(self, replica: LiveReplica) -> bool:
        """Give it no more requests, and stop it once it has ended those it has; False if it is not ready."""
        ...


@runtime_checkable
class HasAdapters(Protocol):
    """May have LoRA adapters, which cost time and memory if it has; else they are names that cost nothing."""

    def load_adapter(self, name: str, number: int, *, in_advance: bool = False) -> None:
        """Bring one to the device now: the next step waits for it, if not ``in_advance`` of all. ``number`` is that of
        requests that ask for it."""
        ...


@runtime_checkable
class ForgetsPrefixes(Protocol):
    """Has a prefix cache that can be emptied."""

    def reset_prefix_cache(self) -> bool:
        """Forget all cached prefixes; False, and nothing is forgotten, while requests hold KV blocks, as in vLLM."""
        ...


@runtime_checkable
class Sleeps(Protocol):
    """Can be put to sleep as vLLM can: requests that come meanwhile wait until it is woken up."""

    @property
    def sleep_level(self) -> int | None:
        """0 only stops to schedule, 1 and 2 have also given up the KV cache; None is awake."""
        ...

    async def sleep(self, level: int, mode: SleepMode) -> None:
        """Fall asleep: after ending what runs with finish reason "abort", or after waiting for it.

        Returns when nothing runs any more.
        """
        ...

    def wake_up(self, tags: list[str]) -> None:
        """Wake up, or only the parts named by ``tags`` ("weights", "kv_cache", "scheduling"): awake once all are."""
        ...
