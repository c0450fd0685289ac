"""What features counted over a run, of each request and in all: more columns and keys beside the usual ones."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable

import numpy as np
import numpy.typing as npt

Columns = dict[str, npt.NDArray[np.int64]]


class Counts:
    """``of_requests`` are columns by name, each a count by request id; ``totals`` are figures by name,
    and so are ``seconds``.

    Replicas of one cluster share one: what they count is added up. A server that runs for ever does not count
    ``of_each`` request.
    """

    def __init__(self, of_each: bool = True) -> None:
        self.of_each = of_each
        self.totals: Counter[str] = Counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.of_requests: defaultdict[str, Counter[Hashable]] = defaultdict(Counter)

    def add(self, name: str, request_id: Hashable, count: int) -> None:
        """Count for a request and in all."""
        if self.of_each:
            self.of_requests[name][request_id] += count
        self.totals[name] += count

    def note(self, name: str, request_id: Hashable, number: int) -> None:
        """A number of a request that is no count, in none of the totals."""
        if self.of_each:
            self.of_requests[name][request_id] = number

    def columns(self, rows: int) -> Columns:
        """One entry for each of ``rows`` requests, whose ids are 0 and up."""
        return {
            name: np.array([by_id[row] for row in range(rows)], dtype=np.int64)
            for name, by_id in sorted(self.of_requests.items())
        }
