"""The figures of a run, by the definitions of ``vllm bench serve`` where it has them, and those that it hides.

Sums, throughput and latencies are of successful requests. A latency that no request has is an empty array.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from simserve.bench.measure.outcome import Outcome
from simserve.errors import ConfigError
from simserve.metrics.distribution import Distribution, distribution

Floats = npt.NDArray[np.float64]

SloName = Literal["ttft", "tpot", "e2el"]

SLO_NAMES: tuple[SloName, ...] = ("ttft", "tpot", "e2el")

BUCKET_S = 1.0


@dataclass(frozen=True)
class Figures:
    """One run in numbers; seconds, and counts of requests and tokens.

    ``duration_s`` reaches from the start to the end of the last answer: the wait for the first arrival and the drain
    are in it. ``values_s`` holds every value of each latency, in seconds, by its name:

    ====================  ==========================================================================================
    ttft                  from sending to the first chunk with output
    tpot                  (e2el - ttft) / (tokens - 1), for answers of at least 2 tokens
    itl                   between consecutive chunks with output, pooled over all requests
    e2el                  from sending to the last output or the finish reason
    ttft_scheduled        the same from when the request should have been sent: due by its rate, or its place free
    e2el_scheduled
    lag                   from that moment to sending: the client's own delay
    client_queue_time     from being due to being sent: the wait for a place under --max-concurrency
    e2el_including_client_queue
    token_itl             between tokens where the server says how many each chunk completes
    server_queue_time     as the server reports them
    server_ttft
    ====================  ==========================================================================================
    """

    completed: int
    failed: int
    duration_s: float
    total_input_tokens: int
    total_output_tokens: int
    total_sequences: int
    audio_s: float
    cached_tokens: int | None
    max_concurrent_requests: int
    max_output_tokens_per_s: float
    good: int | None
    values_s: Mapping[str, Floats]
    shared_stamps: int
    chunks: int

    @property
    def request_throughput(self) -> float:
        """Successful requests per second."""
        return self._per_second(self.completed)

    @property
    def output_throughput(self) -> float:
        """Output tokens per second."""
        return self._per_second(self.total_output_tokens)

    @property
    def total_token_throughput(self) -> float:
        """Input and output tokens per second."""
        return self._per_second(self.total_input_tokens + self.total_output_tokens)

    @property
    def request_goodput(self) -> float | None:
        """Requests per second that met every SLO; None without SLOs."""
        return None if self.good is None else self._per_second(self.good)

    @property
    def slo_share(self) -> float | None:
        """The part of all requests, failed ones too, that met every SLO; None without SLOs."""
        return None if self.good is None else self.good / max(self.completed + self.failed, 1)

    @property
    def coalesced(self) -> float:
        """The part of chunks that came in one read with the chunk before, so that no gap between them was seen."""
        return self.shared_stamps / self.chunks if self.chunks else 0.0

    def latency(self, name: str, percentiles: Sequence[float] = ()) -> Distribution:
        """Statistics of one latency."""
        return distribution(self.values_s[name], percentiles)

    def _per_second(self, count: float) -> float:
        return count / self.duration_s if self.duration_s > 0 else 0.0


def figures_of(
    outcomes: Sequence[Outcome],
    start_s: float,
    *,
    is_closed_loop: bool,
    slos_s: Mapping[SloName, float] | None = None,
    sequences: int | None = None,
    audio_s: float = 0.0,
) -> Figures:
    """The numbers of ``outcomes``, whose tokens have all been counted."""
    ok = [one for one in outcomes if one.ok]
    chunks = sum(len(one.token_times_s) for one in ok)
    gaps = [np.diff(np.asarray(one.token_times_s)) for one in ok if len(one.token_times_s) > 1]
    itl = np.concatenate(gaps) if gaps else np.empty(0)
    cached = [one.cached_tokens for one in ok if one.cached_tokens is not None]
    return Figures(
        completed=len(ok),
        failed=len(outcomes) - len(ok),
        duration_s=max((one.end_s for one in outcomes), default=start_s) - start_s,
        total_input_tokens=sum(one.input_tokens or 0 for one in ok),
        total_output_tokens=sum(one.output_tokens or 0 for one in ok),
        total_sequences=len(ok) if sequences is None else sequences,
        audio_s=audio_s,
        cached_tokens=sum(cached) if cached else None,
        max_concurrent_requests=most_at_once(outcomes),
        max_output_tokens_per_s=_most_tokens_in_a_second(ok),
        good=None if not slos_s else sum(_is_good(one, slos_s) for one in ok),
        values_s=_values(ok, itl, is_closed_loop=is_closed_loop),
        shared_stamps=int(np.sum(itl == 0.0)),
        chunks=chunks,
    )


def parse_slos(words: Sequence[str] | None) -> dict[SloName, float]:
    """``ttft:200 tpot:50`` (milliseconds) as seconds by name; raises :class:`ConfigError` for anything else."""
    slos: dict[SloName, float] = {}
    for word in words or ():
        name, _, value = word.partition(":")
        known = next((one for one in SLO_NAMES if one == name), None)
        try:
            limit_ms = float(value)
        except ValueError:
            limit_ms = math.nan
        if known is None or not limit_ms >= 0:
            raise ConfigError(
                f"--goodput takes NAME:MILLISECONDS with a name out of {', '.join(SLO_NAMES)}, such as ttft:200,"
                f" not '{word}'"
            )
        slos[known] = limit_ms / 1e3
    return slos


def most_at_once(outcomes: Sequence[Outcome]) -> int:
    """Most requests under way at any instant, each from its sending up to, not including, its end."""
    sent = np.array([one.sent_s for one in outcomes])
    ended = np.array([one.end_s for one in outcomes])
    times = np.concatenate([sent, ended])
    changes = np.repeat([1, -1], len(outcomes))
    in_time_departures_first = np.lexsort((changes, times))
    return int(np.cumsum(changes[in_time_departures_first]).max(initial=0))


def tokens_per_chunk(outcome: Outcome) -> Floats:
    """How many tokens each chunk stands for: as the server says, else all of them shared out evenly."""
    chunks = len(outcome.token_times_s)
    if chunks and len(outcome.tokens_at) == chunks:
        return np.diff(np.asarray(outcome.tokens_at, dtype=np.float64), prepend=0.0)
    return np.full(chunks, (outcome.output_tokens or 0) / max(chunks, 1))


def _values(ok: Sequence[Outcome], itl: Floats, *, is_closed_loop: bool) -> dict[str, Floats]:
    def column(values: list[float]) -> Floats:
        array = np.array(values, dtype=np.float64)
        return array[~np.isnan(array)]

    sent = np.array([one.sent_s for one in ok])
    ended = np.array([one.end_s for one in ok])
    due = np.array([one.due_s for one in ok])
    ready = np.array([one.ready_s for one in ok])
    scheduled = ready if is_closed_loop else due
    ttft = np.array([one.ttft_s for one in ok])
    has_ttft = ~np.isnan(ttft)
    return {
        "ttft": ttft[has_ttft],
        "tpot": column([one.tpot_s for one in ok]),
        "itl": itl,
        "e2el": ended - sent,
        "ttft_scheduled": (ttft + sent - scheduled)[has_ttft],
        "e2el_scheduled": ended - scheduled,
        "lag": sent - ready,
        "client_queue_time": sent - due,
        "e2el_including_client_queue": ended - due,
        "token_itl": _token_gaps(ok),
        "server_queue_time": column([one.server_queue_s for one in ok]),
        "server_ttft": column([one.server_ttft_s for one in ok]),
    }


def _token_gaps(ok: Sequence[Outcome]) -> Floats:
    """Each gap between chunks shared out over the tokens that the later chunk completes."""
    gaps = []
    for one in ok:
        if len(one.tokens_at) == len(one.token_times_s) > 1:
            tokens = np.diff(np.asarray(one.tokens_at))
            gap_s = np.diff(np.asarray(one.token_times_s))
            some = tokens > 0
            gaps.append(np.repeat(gap_s[some] / tokens[some], tokens[some]))
    return np.concatenate(gaps) if gaps else np.empty(0)


def _is_good(one: Outcome, slos_s: Mapping[SloName, float]) -> bool:
    """Whether every SLO was met; a single token has no TPOT to miss."""
    tpot_s = 0.0 if (one.output_tokens or 0) <= 1 else one.tpot_s
    values = {"ttft": one.ttft_s, "tpot": tpot_s, "e2el": one.e2el_s}
    return all(values[name] <= limit_s for name, limit_s in slos_s.items())


def _most_tokens_in_a_second(ok: Sequence[Outcome]) -> float:
    """Most output tokens in any whole second since the first request was sent."""
    some = [one for one in ok if one.token_times_s]
    if not some:
        return 0.0
    origin_s = min(one.sent_s for one in some)
    times = np.concatenate([np.asarray(one.token_times_s) for one in some])
    weights = np.concatenate([tokens_per_chunk(one) for one in some])
    buckets = ((times - origin_s) / BUCKET_S).astype(np.int64)
    return float(np.bincount(buckets, weights).max())
