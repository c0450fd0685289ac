"""What a workload is to everything above: columns, one row per request, in order of arrival."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from simserve.errors import WorkloadError


@dataclass(frozen=True)
class PrefixUnits:
    """Identities of what prompts begin with, for the prefix cache.

    Request ``i`` begins with the units ``ids[offsets[i]:offsets[i + 1]]``, each standing for
    ``unit_tokens`` tokens (the last may be cut short by the end of the prompt). As in the Mooncake traces the ids
    are prefix-chained: two requests with the same id share everything up to and including that unit.
    """

    unit_tokens: int
    ids: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]

    def of(self, row: int) -> list[int]:
        """The unit ids of request ``row``, first to last."""
        ids: list[int] = self.ids[self.offsets[row] : self.offsets[row + 1]].tolist()
        return ids

    def take(self, rows: npt.NDArray[np.intp]) -> PrefixUnits:
        """The units of these rows, in this order; a row may come more than once."""
        if np.array_equal(rows, np.arange(len(self.offsets) - 1)):
            return self
        counts = np.diff(self.offsets)[rows]
        offsets = np.concatenate(([0], np.cumsum(counts)))
        # For each unit of the result: where its row begins in the old array, plus its place within the row.
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1][rows] - offsets[:-1], counts)
        return PrefixUnits(self.unit_tokens, self.ids[places], offsets)


@dataclass(frozen=True)
class Workload:
    """Requests as columns, sorted by arrival; all arrays have one entry per request.

    ``arrival_s`` are seconds since the run's start (the first is >= 0), ``input_tokens`` and ``output_tokens`` are
    at least 1. ``prefix`` is None where nothing is known to be shared: every prompt is then its own.
    ``adapters`` are the numbers of LoRA adapters that requests ask for, 0 for none; None where nobody has one.
    ``dropped_requests`` counts rows of a trace that are not here because they had failed where it was taken.
    """

    name: str
    arrival_s: npt.NDArray[np.float64]
    input_tokens: npt.NDArray[np.int64]
    output_tokens: npt.NDArray[np.int64]
    prefix: PrefixUnits | None = None
    dropped_requests: int = 0
    adapters: npt.NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        rows = len(self.arrival_s)
        if len(self.input_tokens) != rows or len(self.output_tokens) != rows:
            raise WorkloadError(f"workload {self.name} has columns of different lengths")
        if rows == 0:
            raise WorkloadError(f"workload {self.name} has no requests; give it at least one")
        if np.any(np.diff(self.arrival_s) < 0) or self.arrival_s[0] < 0:
            raise WorkloadError(f"workload {self.name} is not sorted by arrival time")
        if self.input_tokens.min() < 1 or self.output_tokens.min() < 1:
            raise WorkloadError(f"workload {self.name} has a request without input or output tokens")

    def __len__(self) -> int:
        return len(self.arrival_s)

    def take(self, rows: npt.NDArray[np.intp], arrival_s: npt.NDArray[np.float64] | None = None) -> Workload:
        """The workload of these rows in this order, which must be one of arrival; ``arrival_s`` are their new times."""
        return replace(
            self,
            arrival_s=self.arrival_s[rows] if arrival_s is None else arrival_s,
            input_tokens=self.input_tokens[rows],
            output_tokens=self.output_tokens[rows],
            prefix=None if self.prefix is None else self.prefix.take(rows),
            adapters=None if self.adapters is None else self.adapters[rows],
        )
