"""What a client would have measured for each request, in seconds; NaN where it never came."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from simserve.metrics.records import Records

DEFINITIONS = {
    "TTFT": "first token - arrival",
    "TPOT": "(last - first token) / (tokens - 1), one per request of at least 2 tokens",
    "ITL": "time between consecutive tokens, pooled over all requests",
    "E2E": "last token - arrival",
}
"""How each latency is defined; printed under every table, because benchmark tools disagree."""

Seconds = npt.NDArray[np.float64]


def ttft_s(records: Records) -> Seconds:
    """Time to first token, per request."""
    return records.first_token_s - records.arrival_s


def tpot_s(records: Records) -> Seconds:
    """Time per output token after the first, per request; NaN for a single token, which has no such time."""
    later_tokens = np.where(records.output_tokens > 1, records.output_tokens - 1.0, np.nan)
    return (records.finish_s - records.first_token_s) / later_tokens


def e2e_s(records: Records) -> Seconds:
    """Time from arrival to last token, per request."""
    return records.finish_s - records.arrival_s
