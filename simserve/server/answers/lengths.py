"""How long simulated answers are where clients leave it open, and how long their reasoning is."""

from __future__ import annotations

import hashlib

import numpy as np

from simserve.workload.lengths import LengthDistribution, LognormalLength

USUAL_LENGTH: LengthDistribution = LognormalLength(128, 0.8)
"""Answers without a limit: mean 128 tokens, median 93, 95th percentile 347."""

REASONING: dict[str, LengthDistribution] = {
    "minimal": LognormalLength(24, 0.5),
    "low": LognormalLength(96, 0.5),
    "medium": LognormalLength(384, 0.6),
    "high": LognormalLength(1536, 0.6),
    "xhigh": LognormalLength(4096, 0.6),
    "max": LognormalLength(8192, 0.6),
}
"""Reasoning before an answer, by ``reasoning_effort``: each level thinks about four times as long as the one before."""


def drawn_length(distribution: LengthDistribution, key: str) -> int:
    """A length that is the same whenever the same ``key`` asks."""
    seed = int.from_bytes(hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
    return int(distribution.draw(np.random.default_rng(seed), 1)[0])
