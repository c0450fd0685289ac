"""The same requests served at both ends of what the profile's uncertainty allows.

Errors of step times are not errors of latencies: near saturation a few percent more make queues grow without end. So
the run is repeated, with the same requests, at both edges (:func:`simserve.hardware.at_the_edge`), and what comes out
is the band, queueing and batching included.
"""

from __future__ import annotations

from simserve.config import EngineOptions
from simserve.hardware import HardwareProfile
from simserve.models import ModelSpec
from simserve.simulation.simulate import Progress, SimulationResult, simulate
from simserve.simulation.sources import Source
from simserve.workload.workload import Workload

MOST_REQUESTS = 5000
"""In a run whose bands are made without being asked for: two more runs of so many take a second or so."""

MADE = "the same requests again with every operator that much slower, and that much faster"
NOT_ASKED = f"not made for more than {MOST_REQUESTS:,} requests; --bands makes them, in three times the time"
SWITCHED_OFF = "not made, as --no-bands says"


def bands_wanted(asked: bool | None, requests: int) -> bool:
    """Whether to make bands for so many ``requests``, where the user ``asked`` for them, refused, or said nothing."""
    return requests <= MOST_REQUESTS if asked is None else asked


def why_none(asked: bool | None) -> str:
    """Why there are no bands, in words."""
    return NOT_ASKED if asked is None else SWITCHED_OFF


def simulate_edges(
    workload: Workload | Source,
    model: ModelSpec,
    hardware: HardwareProfile,
    options: EngineOptions,
    on_progress: Progress | None = None,
) -> tuple[SimulationResult, SimulationResult]:
    """``workload`` on the fastest and on the slowest device that ``hardware`` may be; raises as ``simulate`` does."""
    fast, slow = (simulate(workload, model, hardware, options, on_progress, edge) for edge in (-1, 1))
    return fast, slow
