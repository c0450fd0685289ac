"""What generates behind the server: the simulation, paced on the wall clock."""

from __future__ import annotations

from simserve.engines.base import (
    Engine,
    EngineStatus,
    GenerationRequest,
    RequestTiming,
    SamplingParams,
    TokenEvent,
    TokenLogprob,
)
from simserve.engines.cluster import ClusterEngine
from simserve.engines.simulated import SimulatedEngine, simulated_engine

__all__ = [
    "ClusterEngine", "Engine", "EngineStatus", "GenerationRequest", "RequestTiming", "SamplingParams",
    "SimulatedEngine", "TokenEvent", "TokenLogprob", "simulated_engine",
]  # fmt: skip
