"""All that is counted and kept of one engine's work: metrics, the trace of what was served, the dashboard's figures."""

from __future__ import annotations

from collections.abc import Sequence

from simserve.engines.base import Engine
from simserve.engines.controls import Observable
from simserve.server.dashboard.feed import Feed
from simserve.server.metrics import EngineMetrics
from simserve.server.trace import ServedTrace


class Telemetry:
    """Listens to ``engine``, which serves ``model_name``; all is empty for an engine that tells nothing."""

    def __init__(self, engine: Engine, model_name: str) -> None:
        self.engine = engine
        self.model_name = model_name
        self.metrics = EngineMetrics(engine, model_name)
        self.trace = ServedTrace()
        self.feed = Feed(engine)
        if isinstance(engine, Observable):
            for observer in (self.metrics, self.trace, self.feed):
                engine.observe(observer)

    def answered(self, choices: int, longest: Sequence[int]) -> None:
        """See :data:`simserve.server.service.OnAnswer`."""
        for tokens in longest:
            self.metrics.answered(choices, tokens)
