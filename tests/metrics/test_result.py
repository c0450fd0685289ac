"""The flat object that readers of ``vllm bench serve`` results understand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from simserve.metrics.bands import Band, Bands, spread
from simserve.metrics.files import to_json
from simserve.metrics.records import FINISHED, Records, RunDescription, RunTotals, TokenGaps
from simserve.metrics.result import predicted_figures, result_object
from simserve.metrics.summary import summarize

NO_BANDS = Bands("not made")


def test_keys_and_units_are_vllms(records: Records, totals: RunTotals, description: RunDescription) -> None:
    result = result_object(summarize(records, totals, (50, 99, 99.9)), description, NO_BANDS)

    assert result["duration"] == 10.0
    assert (result["completed"], result["failed"], result["num_prompts"]) == (3, 2, 5)
    assert result["mean_ttft_ms"] == pytest.approx(3000)
    for metric in ("ttft", "tpot", "itl", "e2el"):
        names = [name for name in result if name.endswith(f"_{metric}_ms")]
        assert names == [f"{statistic}_{metric}_ms" for statistic in ("mean", "median", "std", "p50", "p99", "p99.9")]


def test_it_says_what_was_simulated_and_how_far_to_trust_it(
    records: Records, totals: RunTotals, description: RunDescription
) -> None:
    result = result_object(summarize(records, totals), description, NO_BANDS)

    assert (result["model"], result["hardware"], result["hardware_profile"]) == ("some/model", "2 x Card", "Card")
    assert result["calibrated"] is False
    assert "±35%" in str(result["uncertainty"])
    assert (result["kv_blocks"], result["peak_kv_blocks_used"], result["kv_usage"]) == (120, 30, 0.25)
    assert (result["preemptions"], result["steps"], result["aborted"], result["rejected"]) == (1, 40, 1, 1)
    assert (result["compute_utilization"], result["bandwidth_utilization"]) == pytest.approx((0.25, 0.4))
    assert result["prefix_cache_hit_rate"] == 0.25


def test_a_latency_that_no_request_has_is_null(
    records: Records, totals: RunTotals, description: RunDescription
) -> None:
    single_tokens = replace(
        records,
        output_tokens=np.ones(5, dtype=np.int64),
        status=np.full(5, FINISHED, dtype=np.int8),
        arrival_s=np.zeros(5),
        first_token_s=np.ones(5),
        finish_s=np.ones(5),
        gaps=TokenGaps(np.array([]), np.array([], dtype=np.int64)),
    )
    result = json.loads(to_json(result_object(summarize(single_tokens, totals), description, NO_BANDS)))

    assert result["mean_ttft_ms"] == 1000.0
    assert result["mean_tpot_ms"] is result["p99_itl_ms"] is None


def test_a_band_follows_its_figure_in_the_same_unit(
    records: Records, totals: RunTotals, description: RunDescription
) -> None:
    bands = Bands("three runs", {"mean_ttft_ms": Band(2900.0, 3200.0), "duration": Band(9.0, 12.0)})
    result = result_object(summarize(records, totals), description, bands)

    assert (result["mean_ttft_ms_low"], result["mean_ttft_ms"], result["mean_ttft_ms_high"]) == (2900, 3000, 3200)
    assert (result["duration_low"], result["duration_high"]) == (9.0, 12.0)
    assert result["bands"] == "three runs"
    assert "p99_ttft_ms_low" not in result


def test_a_band_spans_all_runs_and_is_missing_where_one_has_no_such_figure(records: Records, totals: RunTotals) -> None:
    now = summarize(records, totals)
    slower = replace(records, first_token_s=records.first_token_s + 1, finish_s=records.finish_s + 1)
    silent = TokenGaps(np.array([]), np.array([], dtype=np.int64))
    runs = [now, summarize(slower, replace(totals, duration_s=11.0)), summarize(replace(records, gaps=silent), totals)]

    bands = spread(map(predicted_figures, runs), "three runs").by_key

    assert bands["mean_ttft_ms"] == Band(pytest.approx(3000), pytest.approx(4000))
    assert bands["request_throughput"] == Band(pytest.approx(3 / 11), pytest.approx(3 / 10))
    assert "mean_itl_ms" not in bands
