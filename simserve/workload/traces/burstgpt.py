"""BurstGPT: CSV with ``Timestamp`` in seconds and ``Request tokens,Response tokens``, in two versions.

https://github.com/HPMLL/BurstGPT. The second adds ``Session ID`` and ``Elapsed time``. Rows with 0 response tokens are
requests that had failed: they are left out and counted. The other columns label a request and do not shape its load.
"""

from __future__ import annotations

import numpy as np

from simserve.errors import WorkloadError
from simserve.workload.traces.format import Requests, TraceFormat
from simserve.workload.traces.table import Table


def _read(table: Table) -> Requests:
    succeeded = table.tokens("Response tokens", least=0) > 0
    if not np.any(succeeded):
        raise WorkloadError(f"{table.source} has only failed requests (0 response tokens); give a trace with others")
    kept = table.keep(succeeded)
    return Requests(
        arrival_s=kept.numbers("Timestamp", "a time in seconds"),
        input_tokens=kept.tokens("Request tokens"),
        output_tokens=kept.tokens("Response tokens"),
        dropped_requests=len(table) - len(kept),
    )


FORMAT = TraceFormat(
    name="BurstGPT CSV",
    required=("Timestamp", "Model", "Request tokens", "Response tokens", "Total tokens", "Log Type"),
    optional=("Session ID", "Elapsed time"),
    read=_read,
)
