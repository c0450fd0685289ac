"""What the engine's host does in a step besides computing: planning, finding pages, taking in tokens, making text."""

from __future__ import annotations

import numpy as np

from simserve.calibration.microbench.bench import Bench, Pace
from simserve.calibration.microbench.engine import EngineUnderTest
from simserve.calibration.microbench.machine import Machine
from simserve.calibration.microbench.stopwatch import Call
from simserve.hardware import HostTimes

BATCHES = (1, 8, 32)
LAUNCHES = 100


def measure_host(bench: Bench, machine: Machine, engine: EngineUnderTest, pace: Pace) -> HostTimes:
    """A straight line over the number of decodes through what a step takes whose tokens are there at once.

    And what starting an operator takes that has nothing to do.
    """
    cases = {batch: engine.host_step(batch) for batch in BATCHES} | {LAUNCHES: _launches(machine)}
    timings = bench.measure(cases, pace)
    request_s, step_s = np.polyfit(BATCHES, [timings[batch].seconds for batch in BATCHES], 1)
    return HostTimes(
        step_s=max(float(step_s), 0.0),
        request_s=max(float(request_s), 0.0),
        launch_s=timings[LAUNCHES].seconds / LAUNCHES,
    )


def _launches(machine: Machine) -> Call:
    """So many operators on a single number, one after the other, and waiting for the device."""
    import torch

    number = torch.zeros(1, device=machine.device)

    def launch() -> None:
        for _ in range(LAUNCHES):
            number.add_(1.0)
        number.item()

    return launch
