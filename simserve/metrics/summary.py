"""From columns to the numbers people compare: latencies, throughput and utilisation of one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simserve.metrics.distribution import Distribution, distribution
from simserve.metrics.latency import e2e_s, tpot_s, ttft_s
from simserve.metrics.records import ABORTED, FAILED, FINISHED, REJECTED, THROTTLED, Records, RunDescription, RunTotals

DEFAULT_PERCENTILES = (50.0, 90.0, 99.0)


@dataclass(frozen=True)
class Summary:
    """One run in numbers. Tokens, throughput and latencies are those of finished requests; times are seconds.

    ``itl`` pools the gaps between the tokens of all requests, so a request with more tokens has more say. Percentiles
    of each distribution stand in the order of ``percentiles``.
    """

    completed: int
    aborted: int
    rejected: int
    throttled: int
    lost: int
    total_input_tokens: int
    total_output_tokens: int
    request_throughput: float
    output_throughput: float
    total_token_throughput: float
    max_concurrent_requests: int
    percentiles: tuple[float, ...]
    ttft: Distribution
    tpot: Distribution
    itl: Distribution
    e2e: Distribution
    totals: RunTotals

    @property
    def failed(self) -> int:
        """Requests that did not get all of their tokens: aborted, rejected, throttled, or lost with a replica."""
        return self.aborted + self.rejected + self.throttled + self.lost

    @property
    def prefix_cache_hit_rate(self) -> float:
        """Prompt tokens found in the prefix cache at first admission, as a fraction of all prompt tokens."""
        return _ratio(self.totals.cached_tokens, self.totals.prompt_tokens)


@dataclass(frozen=True)
class Utilisation:
    """How much of the hardware a run used, each as a fraction of what was there for ``duration_s``.

    ``compute`` and ``bandwidth`` compare the work that the steps needed with the datasheet's peaks, ``busy`` is the
    share of time in which a step was running, ``kv`` the largest share of KV blocks in use at any step, ``front_end``
    the share of time in which its busiest process worked.
    """

    compute: float
    bandwidth: float
    busy: float
    kv: float
    front_end: float


def summarize(records: Records, totals: RunTotals, percentiles: Sequence[float] = DEFAULT_PERCENTILES) -> Summary:
    """The numbers of a run; ``percentiles`` are in percent, 0 to 100.

    Definitions are those of ``vllm bench serve``, except that a latency which no request has is NaN rather than 0.
    """
    finished = records.status == FINISHED
    completed = int(finished.sum())
    input_tokens = int(records.input_tokens[finished].sum())
    output_tokens = int(records.output_tokens[finished].sum())
    return Summary(
        completed=completed,
        aborted=int((records.status == ABORTED).sum()),
        rejected=int((records.status == REJECTED).sum()),
        throttled=int((records.status == THROTTLED).sum()),
        lost=int((records.status == FAILED).sum()),
        total_input_tokens=input_tokens,
        total_output_tokens=output_tokens,
        request_throughput=_ratio(completed, totals.duration_s),
        output_throughput=_ratio(output_tokens, totals.duration_s),
        total_token_throughput=_ratio(input_tokens + output_tokens, totals.duration_s),
        max_concurrent_requests=_max_concurrent(records),
        percentiles=tuple(percentiles),
        ttft=distribution(ttft_s(records)[finished], percentiles),
        tpot=distribution(tpot_s(records)[finished & (records.output_tokens > 1)], percentiles),
        itl=distribution(records.gaps.gap_s, percentiles, records.gaps.count),
        e2e=distribution(e2e_s(records)[finished], percentiles),
        totals=totals,
    )


def utilisation(totals: RunTotals, description: RunDescription) -> Utilisation:
    """What ``totals`` are of what the hardware in ``description`` could have done in the same time."""
    return Utilisation(
        compute=_ratio(totals.flops, totals.duration_s * description.peak_flops),
        bandwidth=_ratio(totals.bytes_moved, totals.duration_s * description.peak_bandwidth_bytes_per_s),
        busy=_ratio(totals.busy_s, totals.duration_s),
        kv=_ratio(totals.peak_kv_blocks_used, description.kv_blocks),
        front_end=_ratio(totals.front_end_busy_s, totals.duration_s),
    )


def _max_concurrent(records: Records) -> int:
    """Most requests in the system at once, each from its arrival up to, not including, its end."""
    ended = ~np.isnan(records.finish_s)
    times = np.concatenate([records.arrival_s[ended], records.finish_s[ended]])
    changes = np.repeat([1, -1], int(ended.sum()))
    in_time_departures_first = np.lexsort((changes, times))
    return int(np.cumsum(changes[in_time_departures_first]).max(initial=0))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
