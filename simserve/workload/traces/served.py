"""What a SimServe server has served, as ``GET /trace`` writes it: JSON Lines, one request each.

``prefix_hashes`` name the blocks that the prompt begins with, ``unit_tokens`` tokens each: equal hashes mean that
everything up to there is equal. ``cached_tokens``, ``finish_reason`` and, of a cluster, ``replica`` are what happened
to the request where it was served; another engine finds its own. ``adapter`` names the LoRA adapter of those that have
one. A request that was given up before its first token has
no output and is left out.
"""

from __future__ import annotations

from itertools import chain

import numpy as np
import numpy.typing as npt

from simserve.errors import WorkloadError
from simserve.workload.adapters import numbered
from simserve.workload.traces.format import Requests, TraceFormat
from simserve.workload.traces.table import Table
from simserve.workload.workload import PrefixUnits


def _read(table: Table) -> Requests:
    answered = table.whole_numbers("output_tokens", "a whole number of tokens, at least 0", 0) > 0
    if not answered.any():
        raise WorkloadError(f"{table.source} has no request that was answered; give a trace with at least one")
    dropped = len(table) - int(answered.sum())
    table = table.keep(answered)
    input_tokens = table.tokens("input_tokens")
    return Requests(
        arrival_s=table.numbers("arrival_s", "a time in seconds"),
        input_tokens=input_tokens,
        output_tokens=table.tokens("output_tokens"),
        prefix=_prefix(table, input_tokens),
        dropped_requests=dropped,
        adapters=numbered(table.columns["adapter"]) if "adapter" in table.columns else None,
    )


def _prefix(table: Table, input_tokens: npt.NDArray[np.int64]) -> PrefixUnits:
    unit_tokens = table.tokens("unit_tokens")
    other = np.flatnonzero(unit_tokens != unit_tokens[0])
    if other.size:
        table.blame(int(other[0]), "unit_tokens", f"{unit_tokens[0]}, as in the lines before")
    counts = table.convert("prefix_hashes", "a list of whole numbers of 64 bits", _length, np.dtype(np.int64))
    most = input_tokens // unit_tokens
    long = np.flatnonzero(counts > most)
    if long.size:
        row = int(long[0])
        table.blame(row, "prefix_hashes", f"at most {most[row]} hashes, one per {unit_tokens[0]} tokens of the prompt")
    ids = np.fromiter(chain.from_iterable(table.columns["prefix_hashes"]), np.int64, int(counts.sum()))
    return PrefixUnits(int(unit_tokens[0]), ids, np.concatenate(([0], np.cumsum(counts))))


def _length(hashes: object) -> int:
    """The number of hashes. Raises ValueError if they are not a list of integers of 64 bits."""
    if not isinstance(hashes, list) or not set(map(type, hashes)) <= {int}:
        raise ValueError
    if hashes and not -(2**63) <= min(hashes) <= max(hashes) < 2**63:
        raise ValueError
    return len(hashes)


FORMAT = TraceFormat(
    name="SimServe JSON Lines",
    required=("arrival_s", "input_tokens", "output_tokens", "unit_tokens", "prefix_hashes"),
    optional=("request_id", "cached_tokens", "finish_reason", "replica", "adapter"),
    read=_read,
)
