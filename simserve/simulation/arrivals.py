"""Points in time at which something happens, without the cost of a process."""

from __future__ import annotations

from collections.abc import Callable
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
