"""What the engine's host does in a step besides computing: planning, finding pages, taking in tokens, making text."""

from __future__ import annotations

import numpy as np

from simserve.calibration.microbench.bench import Bench, Pace
from simserve.calibration.microbench.engine import EngineUnderTest
from simserve.hardware import HostTimes

BATCHES = (1, 8, 32)


def measure_host(bench: Bench, engine: EngineUnderTest, pace: Pace) -> HostTimes:
    """A straight line over the number of decodes through what a step takes whose tokens are there at once."""
    timings = bench.measure({batch: engine.host_step(batch) for batch in BATCHES}, pace)
    request_s, step_s = np.polyfit(BATCHES, [timings[batch].seconds for batch in BATCHES], 1)
    return HostTimes(step_s=max(float(step_s), 0.0), request_s=max(float(request_s), 0.0))
