"""A run small enough to work out by hand: three requests that finish, one aborted, one rejected."""

from __future__ import annotations

import numpy as np
import pytest

from simserve.metrics.records import ABORTED, FINISHED, REJECTED, Records, RunDescription, RunTotals, TokenGaps

NEVER = float("nan")


@pytest.fixture
def records() -> Records:
    """The first takes 1 s to its first token and 0.1 s per token after it; the third has one token only."""
    return Records(
        arrival_s=np.array([0.0, 1.0, 2.0, 3.0, 4.0]),
        scheduled_s=np.array([0.0, 1.0, 2.0, 3.0, NEVER]),
        first_token_s=np.array([1.0, 4.0, 7.0, 3.5, NEVER]),
        finish_s=np.array([2.0, 10.0, 7.0, 5.0, NEVER]),
        input_tokens=np.array([100, 200, 300, 400, 500]),
        output_tokens=np.array([11, 13, 1, 2, 0]),
        cached_tokens=np.array([0, 50, 200, 0, 0]),
        preemptions=np.array([0, 1, 0, 0, 0]),
        status=np.array([FINISHED, FINISHED, FINISHED, ABORTED, REJECTED], dtype=np.int8),
        gaps=TokenGaps(gap_s=np.array([0.5, 0.1]), count=np.array([12, 10])),
    )


@pytest.fixture
def totals() -> RunTotals:
    return RunTotals(
        duration_s=10.0,
        busy_s=8.0,
        steps=40,
        preemptions=1,
        prompt_tokens=1000,
        computed_prefill_tokens=800,
        cached_tokens=250,
        peak_kv_blocks_used=30,
        mean_running_requests=1.5,
        flops=2.5e12,
        bytes_moved=4.0e12,
    )


@pytest.fixture
def description() -> RunDescription:
    return RunDescription(
        model="some/model",
        hardware="2 x Card",
        hardware_profile="Card",
        calibrated=False,
        uncertainty="±35%, from datasheet peaks and assumed efficiencies",
        policy="vllm-v1",
        workload="by-hand",
        kv_blocks=120,
        block_size=16,
        tensor_parallel_size=2,
        pipeline_parallel_size=1,
        data_parallel_size=1,
        expert_parallel=False,
        max_num_seqs=8,
        max_num_batched_tokens=512,
        max_model_len=4096,
        dtype="bfloat16",
        peak_flops=1.0e12,
        peak_bandwidth_bytes_per_s=1.0e12,
        quantization=None,
        kv_cache_dtype="bfloat16",
        formats="bfloat16",
        front_end="none",
        api_server_count=0,
    )
