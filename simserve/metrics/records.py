"""What a run leaves behind: one row per request, and the gaps between tokens.

Everything shown is computed from these.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FINISHED, ABORTED, REJECTED, THROTTLED, FAILED = range(5)
"""Values of :attr:`Records.status`: every token produced; ended early; never admitted (it cannot fit); refused by a
cluster that has enough to do, as with status 429; lost with the replica that it was on."""

NEVER_ADMITTED = (REJECTED, THROTTLED)

STATUS_NAMES = ("finished", "aborted", "rejected", "throttled", "failed")


@dataclass(frozen=True)
class TokenGaps:
    """Gaps between consecutive tokens of a request, pooled over requests: ``count[i]`` gaps of ``gap_s[i]`` seconds.

    Tokens leave when a step ends, or a while later through a front end, so every request that decodes in two
    successive steps has the same gap; a run has far fewer distinct gaps than tokens. Not sorted; counts are >= 1.
    """

    gap_s: npt.NDArray[np.float64]
    count: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Records:
    """Columns, one entry per request in order of arrival; times are seconds since the start, NaN if it never came.

    ``scheduled_s`` is the start of the first step that worked on the request, ``first_token_s`` and ``finish_s`` are
    ends of steps or, with a front end, when it had sent these tokens; ``cached_tokens`` are prompt tokens found in the
    prefix cache at first admission, ``output_tokens`` those produced.
    """

    arrival_s: npt.NDArray[np.float64]
    scheduled_s: npt.NDArray[np.float64]
    first_token_s: npt.NDArray[np.float64]
    finish_s: npt.NDArray[np.float64]
    input_tokens: npt.NDArray[np.int64]
    output_tokens: npt.NDArray[np.int64]
    cached_tokens: npt.NDArray[np.int64]
    preemptions: npt.NDArray[np.int64]
    status: npt.NDArray[np.int8]
    gaps: TokenGaps

    def __len__(self) -> int:
        return len(self.arrival_s)


@dataclass(frozen=True)
class RunTotals:
    """What the engine counted over the whole run.

    ``duration_s`` is from the first arrival to the last finish; ``busy_s`` the time in which a step was running;
    ``flops`` and ``bytes_moved`` are the work that the steps needed on each device, as a description's ``peak_*`` are
    those of one device: their quotient is the utilisation.
    """

    duration_s: float
    busy_s: float
    steps: int
    preemptions: int
    prompt_tokens: int
    computed_prefill_tokens: int
    cached_tokens: int
    peak_kv_blocks_used: int
    mean_running_requests: float
    flops: float
    bytes_moved: float
    front_end_busy_s: float = 0.0
    """For how long the busiest process of the front end worked, 0 where there is none."""
    mixed_busy_s: float = 0.0
    mixed_flops: float = 0.0
    mixed_bytes_moved: float = 0.0
    """Of ``busy_s``, ``flops`` and ``bytes_moved``: what steps took that had a prompt in them, or a late token."""


@dataclass(frozen=True)
class RunDescription:
    """What was simulated, for every output: a prediction names its profile and whether that was calibrated.

    ``dtype`` is that of activations, ``formats`` says in words how weights and KV cache are stored. ``peak_flops`` is
    that of the fastest format in use.
    """

    model: str
    hardware: str
    hardware_profile: str
    calibrated: bool
    uncertainty: str
    policy: str
    workload: str
    kv_blocks: int
    block_size: int
    tensor_parallel_size: int
    pipeline_parallel_size: int
    data_parallel_size: int
    expert_parallel: bool
    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int
    dtype: str
    peak_flops: float
    peak_bandwidth_bytes_per_s: float
    quantization: str | None
    kv_cache_dtype: str
    formats: str
    front_end: str
    api_server_count: int
    """Processes of the front end, 0 where there is none."""
    peak_w: float | None = None
    idle_w: float | None = None
    """Power of one device, None where the profile knows none."""
    usd_per_hour: float | None = None
    """Of one device, None where no price is known."""
    price_source: str | None = None
    devices: int = 1
    """Of one replica."""
