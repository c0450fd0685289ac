"""What a trace format is: the columns that give it away, and how they become requests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simserve.workload.traces.table import Table
from simserve.workload.workload import PrefixUnits


@dataclass(frozen=True)
class Requests:
    """Requests as a format's reader finds them: in the file's order, with times from any origin, in seconds.

    ``dropped_requests`` counts rows left out because they had failed where the trace was taken.
    """

    arrival_s: npt.NDArray[np.float64]
    input_tokens: npt.NDArray[np.int64]
    output_tokens: npt.NDArray[np.int64]
    prefix: PrefixUnits | None = None
    dropped_requests: int = 0
    adapters: npt.NDArray[np.int64] | None = None


@dataclass(frozen=True)
class TraceFormat:
    """One trace format. A file is of this format if it has all ``required`` columns (or JSON keys) and no others
    than the ``optional`` ones; ``read`` raises :class:`simserve.errors.WorkloadError` for a bad row.
    """

    name: str
    required: tuple[str, ...]
    read: Callable[[Table], Requests]
    optional: tuple[str, ...] = ()
