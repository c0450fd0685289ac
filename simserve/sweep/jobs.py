"""Doing one job, wherever it is done: a run, or the search for a load."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from simserve.errors import SimServeError
from simserve.metrics.result import Result
from simserve.sweep.expand import Job
from simserve.sweep.search import Probes, find_knee, walls
from simserve.sweep.settings import RunOnce, Settings, Value, merged
from simserve.sweep.spec import Capacity

WHOLE_LOADS = ("max_concurrency", "sessions", "num_prompts")
"""Settings that count something."""


WITH_BANDS: Settings = {"bands": True}
"""What is found is run once more with its bands, for all to see how sure it is."""


@dataclass(frozen=True)
class Outcome:
    """What became of a job. ``result`` is that of its run, or of the highest load that met the SLO; None if there is
    none, with the reason in ``error`` or ``search``. ``search`` holds the loads tried and the walls.
    """

    key: str
    settings: Settings
    result: Result | None
    error: str | None = None
    search: dict[str, Any] = field(default_factory=dict)
    wall_s: float = 0.0


def do_job(run_once: RunOnce, job: Job) -> Outcome:
    """Do ``job`` by ``run_once``; settings that cannot be are an outcome, too."""
    start_s = time.perf_counter()
    try:
        done = _search(run_once, job) if job.capacity else Outcome(job.key, job.settings, run_once(job.settings))
    except SimServeError as error:
        done = Outcome(job.key, job.settings, None, error=str(error))
    return Outcome(done.key, done.settings, done.result, done.error, done.search, time.perf_counter() - start_s)


def at_load(settings: Settings, capacity: Capacity, load: float) -> dict[str, Value]:
    """``settings`` with the load that is searched put to ``load``, and enough requests for it."""
    whole = capacity.of in WHOLE_LOADS
    found = merged(settings, {capacity.of: int(load) if whole else load})
    if capacity.requests_per_load is not None:
        needed = math.ceil(load * capacity.requests_per_load)
        found["num_prompts"] = max(int(found.get("num_prompts") or 1), needed)
    return found


def _search(run_once: RunOnce, job: Job) -> Outcome:
    capacity, slo = job.capacity, job.slo
    assert capacity is not None
    assert slo is not None
    probes = Probes(lambda load: run_once(at_load(job.settings, capacity, load)), capacity.of in WHOLE_LOADS)
    knee = find_knee(probes, slo.met, capacity.first, capacity.least, capacity.most, capacity.tolerance)
    found = walls(probes, slo, knee, capacity.least, capacity.most) if capacity.walls else []
    search = {
        "of": capacity.of,
        "load": knee.load,
        "missed_at": knee.missed_at,
        "tolerance": capacity.tolerance,
        "walls": [asdict(wall) for wall in found],
        "probes": [[load, result] for load, result in sorted(probes.done.items())],
    }
    if knee.load is None:
        return Outcome(job.key, job.settings, None, search=search)
    settings = at_load(job.settings, capacity, knee.load)
    return Outcome(job.key, settings, run_once(merged(settings, WITH_BANDS)), search=search)
