"""Low and high of every predicted figure: what it becomes where all operators are as fast, or as slow, as may be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

Figures = Mapping[str, float | None]
"""What a run predicts, by the keys of its result; None for a latency that no request has."""


@dataclass(frozen=True)
class Band:
    """Where a figure may lie; ``low`` and ``high`` are in its unit."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Bands:
    """A band by the key of each figure, and in words how they were made, or why there are none."""

    basis: str
    by_key: Mapping[str, Band] = field(default_factory=dict)


def spread(runs: Iterable[Figures], basis: str) -> Bands:
    """The band of each figure over ``runs`` of the same workload; none for a figure that one of them does not have."""
    runs = list(runs)
    found = {key: [run.get(key) for run in runs] for key in runs[0]}
    known = {key: [value for value in values if value is not None] for key, values in found.items()}
    complete = {key: values for key, values in known.items() if len(values) == len(runs)}
    return Bands(basis, {key: Band(min(values), max(values)) for key, values in complete.items()})
