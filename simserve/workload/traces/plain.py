"""Plain CSV: ``arrival_s,input_tokens,output_tokens``, SimServe's own format.

``request_id`` may be there and is only a label. ``cached_tokens`` may be there: how many tokens of the prompt earlier
prompts had before it, at most; whose they were is inferred (see :func:`~simserve.workload.prefix.prefix_from_hits`).
``adapter`` may be there: the name of the LoRA adapter that the request asks for, empty for none.
"""

from __future__ import annotations

from dataclasses import replace

from simserve.workload.adapters import numbered
from simserve.workload.prefix import prefix_from_hits
from simserve.workload.traces.format import Requests, TraceFormat
from simserve.workload.traces.table import Table


def _read(table: Table) -> Requests:
    requests = Requests(
        arrival_s=table.numbers("arrival_s", "a time in seconds"),
        input_tokens=table.tokens("input_tokens"),
        output_tokens=table.tokens("output_tokens"),
        adapters=numbered(table.columns["adapter"]) if "adapter" in table.columns else None,
    )
    if "cached_tokens" in table.columns:
        cached = table.tokens("cached_tokens", least=0)
        if cached.any():
            return replace(requests, prefix=prefix_from_hits(requests.input_tokens, cached))
    return requests


FORMAT = TraceFormat(
    name="plain CSV",
    required=("arrival_s", "input_tokens", "output_tokens"),
    optional=("request_id", "cached_tokens", "adapter"),
    read=_read,
)
