"""The numbers of a small run, worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from simserve.metrics.records import REJECTED, Records, RunDescription, RunTotals, TokenGaps
from simserve.metrics.summary import summarize, utilisation


def test_only_finished_requests_count_as_completed(records: Records, totals: RunTotals) -> None:
    summary = summarize(records, totals)

    assert (summary.completed, summary.aborted, summary.rejected, summary.failed) == (3, 1, 1, 2)
    assert summary.total_input_tokens == 100 + 200 + 300
    assert summary.total_output_tokens == 11 + 13 + 1


def test_latencies_are_those_of_finished_requests(records: Records, totals: RunTotals) -> None:
    summary = summarize(records, totals, percentiles=(0, 100))

    assert summary.ttft.at == pytest.approx((1.0, 5.0))  # of 1, 3 and 5 s
    assert summary.ttft.mean == pytest.approx(3.0)
    assert summary.e2e.at == pytest.approx((2.0, 9.0))  # of 2, 9 and 5 s


def test_tpot_leaves_out_the_first_token_and_requests_that_have_no_other(records: Records, totals: RunTotals) -> None:
    tpot = summarize(records, totals, percentiles=(0, 100)).tpot

    assert tpot.count == 2
    assert tpot.at == pytest.approx((0.1, 0.5))  # 1 s for 10 tokens, 6 s for 12


def test_itl_pools_gaps_so_that_longer_answers_weigh_more(records: Records, totals: RunTotals) -> None:
    itl = summarize(records, totals).itl

    assert itl.count == 22
    assert itl.mean == pytest.approx((12 * 0.5 + 10 * 0.1) / 22)
    assert itl.median == 0.5


def test_throughput_is_per_second_of_the_whole_run(records: Records, totals: RunTotals) -> None:
    summary = summarize(records, totals)

    assert summary.request_throughput == pytest.approx(3 / 10)
    assert summary.output_throughput == pytest.approx(25 / 10)
    assert summary.total_token_throughput == pytest.approx(625 / 10)
    assert summary.prefix_cache_hit_rate == pytest.approx(250 / 1000)


def test_a_request_that_ends_as_another_arrives_is_not_beside_it(records: Records, totals: RunTotals) -> None:
    """Arrivals at 0, 1, 2, 3; the first ends at 2, just as the third comes."""
    assert summarize(records, totals).max_concurrent_requests == 3


def test_utilisation_is_work_over_what_the_hardware_could_do(totals: RunTotals, description: RunDescription) -> None:
    used = utilisation(totals, description)

    assert used.compute == pytest.approx(0.25)
    assert used.bandwidth == pytest.approx(0.4)
    assert used.busy == pytest.approx(0.8)
    assert used.kv == pytest.approx(30 / 120)


def test_a_run_that_served_nobody_has_no_latency_and_no_throughput(records: Records, totals: RunTotals) -> None:
    nobody = replace(
        records, status=np.full(5, REJECTED, dtype=np.int8), gaps=TokenGaps(np.array([]), np.array([], dtype=np.int64))
    )
    summary = summarize(nobody, replace(totals, duration_s=0.0, prompt_tokens=0))

    assert (summary.completed, summary.rejected) == (0, 5)
    assert summary.request_throughput == 0.0
    assert summary.ttft.count == summary.itl.count == 0
    assert math.isnan(summary.e2e.mean)
