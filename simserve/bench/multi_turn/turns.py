"""One turn of a conversation: what is sent, and what is measured of the answer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simserve.bench.measure.outcome import Outcome
from simserve.bench.tokens import TokenCounter

LEAST_TTFT_MS = 0.1

LengthLimit = int | None
"""Tokens; 0 for the length of the recorded answer, None for no limit."""


@dataclass(frozen=True)
class TurnOptions:
    """What all turns have in common. ``extra`` fields are added to every body."""

    model: str
    min_tokens: LengthLimit = 0
    max_tokens: LengthLimit = 0
    stream: bool = True
    extra: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Turn:
    """A turn that was answered. Times in ms, ``start_time_ms`` since the run's start.

    ``output_num_first_chunk_tokens`` of the output came in the first chunk: TTFT is set back by what the others of them
    took, and TPOT counts only what came after. ``late_ms`` is by how much it was sent later than its rate called for.
    """

    conversation_id: str
    client_id: int
    ttft_ms: float
    tpot_ms: float
    latency_ms: float
    start_time_ms: float
    end_time_ms: float
    input_num_turns: int
    input_num_tokens: int
    output_num_tokens: int
    output_num_chunks: int
    output_num_first_chunk_tokens: int
    approx_cached_percent: float
    late_ms: float


def body_of(
    options: TurnOptions, messages: Sequence[Mapping[str, str]], recorded_tokens: int | None, *, with_minimum: bool
) -> dict[str, Any]:
    """The fields of the request; ``recorded_tokens`` is how long the recorded answer is, if there is one."""

    def limit(wanted: LengthLimit) -> int | None:
        return recorded_tokens if wanted == 0 else wanted

    fields: dict[str, Any] = {"model": options.model, "messages": list(messages), "stream": options.stream}
    if options.stream:
        fields["stream_options"] = {"include_usage": True}
    if (most := limit(options.max_tokens)) is not None:
        fields["max_tokens"] = most
        if with_minimum and (least := limit(options.min_tokens)) is not None:
            fields["min_tokens"] = min(least, most)
    elif with_minimum and (least := limit(options.min_tokens)) is not None:
        fields["min_tokens"] = least
    return fields | {"temperature": 0.0} | dict(options.extra or {})


def measured_turn(
    outcome: Outcome,
    counter: TokenCounter,
    message_tokens: Sequence[int],
    *,
    conversation_id: str,
    client_id: int,
    start_s: float,
    due_s: float,
) -> Turn:
    """The figures of a turn that succeeded; ``message_tokens`` are the lengths of all messages that were sent."""
    history = sum(message_tokens[:-1])
    inputs = sum(message_tokens)
    output = outcome.output_tokens
    tokens = max(counter.count(outcome.text), 1) if output is None else output
    chunks = len(outcome.token_times_s)
    first = _first_chunk_tokens(outcome, tokens)
    ttft_ms, latency_ms = outcome.ttft_s * 1e3, outcome.e2el_s * 1e3
    tpot_ms = (latency_ms - ttft_ms) / (tokens - first) if tokens > first else math.nan
    if first > 1 and not math.isnan(tpot_ms):
        ttft_ms = max(ttft_ms - (first - 1) * tpot_ms, LEAST_TTFT_MS)
    return Turn(
        conversation_id=conversation_id,
        client_id=client_id,
        ttft_ms=ttft_ms,
        tpot_ms=tpot_ms,
        latency_ms=latency_ms,
        start_time_ms=(outcome.sent_s - start_s) * 1e3,
        end_time_ms=(outcome.end_s - start_s) * 1e3,
        input_num_turns=len(message_tokens),
        input_num_tokens=inputs if outcome.input_tokens is None else outcome.input_tokens,
        output_num_tokens=tokens,
        output_num_chunks=chunks,
        output_num_first_chunk_tokens=first,
        approx_cached_percent=100.0 * history / max(inputs, 1),
        late_ms=(outcome.sent_s - due_s) * 1e3,
    )


def _first_chunk_tokens(outcome: Outcome, tokens: int) -> int:
    """Tokens of the first chunk: as the server counts, else all of them shared out over the chunks."""
    chunks = len(outcome.token_times_s)
    if not chunks:
        return 0
    if outcome.tokens_at:
        return int(outcome.tokens_at[0])
    return max(1, tokens // chunks)
