"""Points in time at which something happens, without the cost of a process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import simpy
from simpy.events import NORMAL, URGENT


class Moment(simpy.Event):
    """An event at ``time_s``, or now if that has passed; ``callback`` is called with it.

    With ``before_others``, what comes from outside comes before steps that end at the same instant, so that ties do not
    depend on what was scheduled first.
    """

    def __init__(
        self,
        env: simpy.Environment,
        time_s: float,
        callback: Callable[[simpy.Event], Any] | None = None,
        before_others: bool = True,
    ) -> None:
        self.env = env
        self.callbacks = [] if callback is None else [callback]
        self._ok = True
        self._value = None
        delay_s = time_s - env.now
        env.schedule(self, URGENT if before_others else NORMAL, delay_s if delay_s > 0.0 else 0.0)


class Alarm(simpy.Event):
    """A moment that can be set again once it has passed, which costs less than making a new one each time.

    ``callbacks`` may be those of other alarms, too.
    """

    __slots__ = ("_ok", "_priority", "_rings", "_value", "callbacks", "env")

    def __init__(
        self, env: simpy.Environment, callbacks: Sequence[Callable[[simpy.Event], Any]], before_others: bool
    ) -> None:
        self.env = env
        self.callbacks = None  # type: ignore[assignment]  # as of an event that has passed
        self._ok = True
        self._value = None
        self._priority = URGENT if before_others else NORMAL
        self._rings = callbacks

    @property
    def is_set(self) -> bool:
        return self.callbacks is not None

    def set(self, time_s: float) -> None:
        """Ring at ``time_s``, or now if that has passed; to be called only while it is not set."""
        self.callbacks = self._rings  # type: ignore[assignment]  # nobody adds to them
        env = self.env
        delay_s = time_s - env.now
        env.schedule(self, self._priority, delay_s if delay_s > 0.0 else 0.0)
