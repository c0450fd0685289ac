"""From a spec to the runs it asks for, in a fixed order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from simserve.errors import ConfigError
from simserve.sweep.axes import Axes, axis_values
from simserve.sweep.settings import Settings, Value, merged, run_key
from simserve.sweep.slo import Slo
from simserve.sweep.spec import Capacity, SweepSpec

MOST_RUNS = 1_000_000

PERCENTILES = (50.0, 90.0, 99.0)
"""Of every run, beside those that the SLO needs."""


@dataclass(frozen=True)
class Job:
    """One unit of work: a run, or the search for a load. ``point`` is what the axes are here, the seed among them."""

    key: str
    settings: Settings
    point: Settings
    slo: Slo | None = None
    capacity: Capacity | None = None


def jobs_of(spec: SweepSpec) -> list[Job]:
    """All jobs of ``spec``, each once, always in the same order. Raises :class:`ConfigError` if there are none."""
    jobs: dict[str, Job] = {}
    percentiles = PERCENTILES if spec.limits is None else spec.limits.with_percentiles(PERCENTILES)
    common: Settings = {"bands": False, "metric_percentiles": ",".join(f"{one:g}" for one in percentiles)}
    for point, fixed in _points(spec):
        for seed in spec.seeds:
            place = merged(point, {"seed": seed}) if len(spec.seeds) > 1 else point
            settings = merged(common, spec.base, fixed, point, {"seed": seed})
            key = run_key(settings, slo=spec.slo if spec.capacity else None, capacity=_searched(spec.capacity))
            jobs.setdefault(key, Job(key, settings, place, spec.limits, spec.capacity))
            if len(jobs) > MOST_RUNS:
                raise ConfigError(f"the sweep has more than {MOST_RUNS:,} runs; leave axes or values out")
    if not jobs:
        raise ConfigError("the sweep has no runs: skip leaves every combination out")
    return list(jobs.values())


def axis_names(jobs: Sequence[Job]) -> list[str]:
    """The settings in which ``jobs`` differ, in the order of the spec."""
    names = dict.fromkeys(name for job in jobs for name in job.point if name != "seed")
    return [name for name in names if len({job.point.get(name) for job in jobs}) > 1] or list(names)


def _searched(capacity: Capacity | None) -> dict[str, Value] | None:
    return None if capacity is None else capacity.model_dump()


def _points(spec: SweepSpec) -> Iterator[tuple[dict[str, Value], dict[str, Value]]]:
    """(values on the axes, settings that conditions set), without those to skip."""
    for point in _grid(spec.axes):
        yield from (found for found in _with_conditions(spec, point, {}, 0) if not _is_skipped(spec, *found))


def _with_conditions(
    spec: SweepSpec, point: dict[str, Value], fixed: dict[str, Value], first: int
) -> Iterator[tuple[dict[str, Value], dict[str, Value]]]:
    for number in range(first, len(spec.conditional)):
        conditional = spec.conditional[number]
        if _holds(conditional.when, merged(spec.base, fixed, point)):
            for more in _grid(conditional.axes, salt=number + 1):
                yield from _with_conditions(spec, merged(point, more), merged(fixed, conditional.set), number + 1)
            return
    yield point, fixed


def _is_skipped(spec: SweepSpec, point: Settings, fixed: Settings) -> bool:
    settings = merged(spec.base, fixed, point)
    return any(_holds(condition, settings) for condition in spec.skip)


def _holds(condition: Mapping[str, list[Value]], settings: Settings) -> bool:
    return all(settings.get(name) in values for name, values in condition.items())


def _grid(axes: Axes, salt: int = 0) -> Iterator[dict[str, Value]]:
    """Every combination; an axis is drawn from a random stream of its own, so that another one leaves it as it is."""
    names = list(axes)
    streams = (np.random.default_rng([salt, *name.encode()]) for name in names)
    columns = [axis_values(name, axes[name], rng) for name, rng in zip(names, streams, strict=True)]
    for values in product(*columns):
        yield dict(zip(names, values, strict=True))
