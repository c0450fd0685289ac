"""LLMServingSim: JSON Lines with ``input_toks``, ``output_toks``, ``arrival_time_ns`` and the prompt's token ids.

https://github.com/casys-kaist/LLMServingSim. ``input_tok_ids`` decide what prompts share, in blocks of 16 tokens; rows
may do without them. ``output_tok_ids`` are only what the model had said: a later prompt that repeats them says so
itself.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from simserve.workload.prefix import block_hashes
from simserve.workload.traces.format import Requests, TraceFormat
from simserve.workload.traces.table import Table
from simserve.workload.workload import PrefixUnits

UNIT_TOKENS = 16


def _read(table: Table) -> Requests:
    input_tokens = table.tokens("input_toks")
    times_ns = table.numbers("arrival_time_ns", "a time in nanoseconds")
    return Requests(
        arrival_s=times_ns / 1e9,
        input_tokens=input_tokens,
        output_tokens=table.tokens("output_toks"),
        prefix=_prefix(table, input_tokens) if "input_tok_ids" in table.columns else None,
    )


def _prefix(table: Table, input_tokens: npt.NDArray[np.int64]) -> PrefixUnits:
    units: list[int] = []
    offsets = [0]
    for row, token_ids in enumerate(table.columns["input_tok_ids"]):
        if token_ids is not None:
            if not isinstance(token_ids, list) or len(token_ids) != input_tokens[row]:
                table.blame(row, "input_tok_ids", f"a list of {input_tokens[row]} token ids, as input_toks says")
            try:
                units += block_hashes(token_ids, UNIT_TOKENS)
            except (ValueError, TypeError, OverflowError):
                table.blame(row, "input_tok_ids", "a list of whole numbers, at least 0 and below 2**32")
        offsets.append(len(units))
    return PrefixUnits(UNIT_TOKENS, np.array(units, dtype=np.int64), np.array(offsets, dtype=np.int64))


FORMAT = TraceFormat(
    name="LLMServingSim JSON Lines",
    required=("input_toks", "output_toks", "arrival_time_ns"),
    optional=("input_tok_ids", "output_tok_ids"),
    read=_read,
)
