"""Azure LLM inference traces, 2023 and 2024: ``TIMESTAMP,ContextTokens,GeneratedTokens``.

https://github.com/Azure/AzurePublicDataset. Times are ``2023-11-16 18:15:46.6805900`` (UTC), from 2024 on with
``+00:00``; they are kept to the microsecond.
"""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from simserve.workload.traces.format import Requests, TraceFormat
from simserve.workload.traces.table import Table

# A fixed day near the data: seconds since 1970 would leave a float only a quarter of a microsecond.
ORIGIN = datetime(2023, 1, 1, tzinfo=UTC)


def _read(table: Table) -> Requests:
    must = "a time such as 2023-11-16 18:15:46.6805900"
    return Requests(
        arrival_s=table.convert("TIMESTAMP", must, _seconds, np.dtype(np.float64)),
        input_tokens=table.tokens("ContextTokens"),
        output_tokens=table.tokens("GeneratedTokens"),
    )


def _seconds(timestamp: str) -> float:
    time = datetime.fromisoformat(timestamp)
    return ((time if time.tzinfo else time.replace(tzinfo=UTC)) - ORIGIN).total_seconds()


FORMAT = TraceFormat(name="Azure CSV", required=("TIMESTAMP", "ContextTokens", "GeneratedTokens"), read=_read)
