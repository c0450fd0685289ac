"""Mooncake: JSON Lines with ``timestamp`` (ms), ``input_length``, ``output_length`` and ``hash_ids``.

https://github.com/kvcache-ai/Mooncake. Each hash id stands for 512 tokens of the prompt, the last for what remains, and
is chained: equal ids mean that everything up to there is equal. A file without any ``hash_ids`` shares nothing.
"""

from __future__ import annotations

from itertools import chain

import numpy as np
import numpy.typing as npt

from simserve.workload.traces.format import Requests, TraceFormat
from simserve.workload.traces.table import Table
from simserve.workload.workload import PrefixUnits

UNIT_TOKENS = 512


def _read(table: Table) -> Requests:
    input_tokens = table.tokens("input_length")
    return Requests(
        arrival_s=table.numbers("timestamp", "a time in milliseconds") / 1e3,
        input_tokens=input_tokens,
        output_tokens=table.tokens("output_length"),
        prefix=_prefix(table, input_tokens) if "hash_ids" in table.columns else None,
    )


def _prefix(table: Table, input_tokens: npt.NDArray[np.int64]) -> PrefixUnits:
    counts = table.convert("hash_ids", "a list of whole numbers", _length, np.dtype(np.int64))
    expected = -(-input_tokens // UNIT_TOKENS)
    odd = np.flatnonzero(counts != expected)
    if odd.size:
        row = int(odd[0])
        must = f"{expected[row]} ids, one per {UNIT_TOKENS} tokens of input_length {input_tokens[row]}"
        table.blame(row, "hash_ids", must)
    ids = np.fromiter(chain.from_iterable(table.columns["hash_ids"]), np.int64, int(counts.sum()))
    return PrefixUnits(UNIT_TOKENS, ids, np.concatenate(([0], np.cumsum(counts))))


def _length(hash_ids: object) -> int:
    """The number of ids. Raises ValueError if they are not a list of integers of 64 bits."""
    if not isinstance(hash_ids, list) or not set(map(type, hash_ids)) <= {int}:
        raise ValueError
    if hash_ids and not -(2**63) <= min(hash_ids) <= max(hash_ids) < 2**63:
        raise ValueError
    return len(hash_ids)


FORMAT = TraceFormat(
    name="Mooncake JSON Lines",
    required=("timestamp", "input_length", "output_length"),
    optional=("hash_ids",),
    read=_read,
)
