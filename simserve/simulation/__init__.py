"""SimPy: replicas in simulated time, workload in, records out."""

from __future__ import annotations

from simserve.simulation.bands import bands_wanted, simulate_edges
from simserve.simulation.recorder import Recorder
from simserve.simulation.replica import Replica, Run, StepObserver
from simserve.simulation.rounds import Rounds
from simserve.simulation.setup import EngineSetup, prepare
from simserve.simulation.simulate import Progress, SimulationResult, simulate
from simserve.simulation.sources import ClosedLoop, Conversations, OpenLoop, Source

__all__ = [
    "ClosedLoop", "Conversations", "EngineSetup", "OpenLoop", "Progress", "Recorder", "Replica", "Rounds",
    "Run",    "SimulationResult", "Source", "StepObserver", "bands_wanted", "prepare", "simulate", "simulate_edges",
]  # fmt: skip
