"""SimPy: replicas in simulated time, workload in, records out."""

from __future__ import annotations

from simserve.simulation.recorder import Recorder
from simserve.simulation.replica import Replica, Run, StepObserver
from simserve.simulation.setup import EngineSetup, prepare
from simserve.simulation.simulate import Progress, SimulationResult, simulate

__all__ = [
    "EngineSetup", "Progress", "Recorder", "Replica", "Run", "SimulationResult", "StepObserver", "prepare", "simulate",
]  # fmt: skip
