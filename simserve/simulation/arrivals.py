"""Points in time at which somebody from outside acts on the simulation."""

from __future__ import annotations

import simpy
from simpy.events import URGENT


class Moment(simpy.Event):
    """Comes at ``time_s``, before steps that end at the same instant: ties never depend on what was scheduled first."""

    def __init__(self, env: simpy.Environment, time_s: float) -> None:
        super().__init__(env)
        self._ok = True
        self._value = None
        env.schedule(self, URGENT, max(0.0, time_s - env.now))
