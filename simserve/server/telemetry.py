"""All that is counted and kept of one engine's work: metrics, the trace of what was served, the dashboard's figures."""

from __future__ import annotations

from collections.abc import Sequence

from simserve.engines.base import Engine
from simserve.engines.controls import HasReplicas, Observable
from simserve.server.dashboard.feed import Feed
from simserve.server.metrics import EngineMetrics
from simserve.server.trace import ServedTrace


class Telemetry:
    """Listens to ``engine``, which serves ``model_name``; all is empty for an engine that tells nothing."""

    def __init__(self, engine: Engine, model_name: str) -> None:
        self.engine = engine
        self.model_name = model_name
        self.trace = ServedTrace()
        self.feed = Feed(engine)
        self.metrics = [EngineMetrics(engine, model_name)]
        """Of the engine, or of each replica of a cluster."""
        if isinstance(engine, HasReplicas):
            self.metrics = [EngineMetrics(engine, model_name, replica) for replica in engine.replicas]
            for metrics, replica in zip(self.metrics, engine.replicas, strict=True):
                replica.observe(metrics)
        elif isinstance(engine, Observable):
            engine.observe(self.metrics[0])
        if isinstance(engine, Observable):
            for observer in (self.trace, self.feed):
                engine.observe(observer)

    def answered(self, choices: int, longest: Sequence[int]) -> None:
        """See :data:`simserve.server.service.OnAnswer`; choices of one request may be on several replicas."""
        for tokens in longest:
            self.metrics[0].answered(choices, tokens)
