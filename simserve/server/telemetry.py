"""All that is counted and kept of one engine's work: metrics, the trace of what was served, the dashboard's figures."""

from __future__ import annotations

from collections.abc import Sequence

from simserve.engines.base import Engine
from simserve.engines.controls import Observable
from simserve.server.dashboard.feed import Feed
from simserve.server.metrics import EngineMetrics
from simserve.server.plans import Plan
from simserve.server.streams import Ended
from simserve.server.trace import ServedTrace


class Telemetry:
    """Listens to ``engine``, which serves ``model_name``; all is empty for an engine that tells nothing."""

    def __init__(self, engine: Engine, model_name: str) -> None:
        self.metrics = EngineMetrics(engine, model_name)
        self.trace = ServedTrace()
        self.feed = Feed(engine)
        if isinstance(engine, Observable):
            for observer in (self.metrics, self.trace, self.feed):
                engine.observe(observer)

    def answered(self, plan: Plan, ended: Sequence[Ended]) -> None:
        """An HTTP request with all its choices was answered."""
        choices = len(plan.choices) // plan.prompts
        for first in range(0, len(ended), choices):
            self.metrics.answered(choices, max(one.tokens for one in ended[first : first + choices]))
