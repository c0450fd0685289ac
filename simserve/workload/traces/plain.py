"""Plain CSV: ``arrival_s,input_tokens,output_tokens``, SimServe's own format.

``request_id`` may be there and is only a label. ``cached_tokens`` may be there as long as it is 0 in every row: a
number alone does not say which earlier prompt the tokens came from, so no prefix cache could be simulated from it.
"""

from __future__ import annotations

import numpy as np

from simserve.workload.traces.format import Requests, TraceFormat
from simserve.workload.traces.table import Table


def _read(table: Table) -> Requests:
    if "cached_tokens" in table.columns:
        _no_cached_tokens(table)
    return Requests(
        arrival_s=table.numbers("arrival_s", "a time in seconds"),
        input_tokens=table.tokens("input_tokens"),
        output_tokens=table.tokens("output_tokens"),
    )


def _no_cached_tokens(table: Table) -> None:
    cached = np.flatnonzero(table.tokens("cached_tokens", least=0))
    if cached.size:
        must = (
            "0 in every row, because a count does not say what the prompt shares with which other"
            " (remove the column to simulate without sharing, or use the Mooncake format with hash_ids)"
        )
        table.blame(int(cached[0]), "cached_tokens", must)


FORMAT = TraceFormat(
    name="plain CSV",
    required=("arrival_s", "input_tokens", "output_tokens"),
    optional=("request_id", "cached_tokens"),
    read=_read,
)
