"""Random streams: every draw of a workload comes from one seed, and each thing drawn has a stream of its own."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from simserve.errors import WorkloadError


class RandomStreams(NamedTuple):
    """Independent generators, one per thing drawn: drawing more from one never shifts another.

    A new stream goes at the end, which leaves the earlier ones (and every published result) unchanged.
    """

    arrivals: np.random.Generator
    input_lengths: np.random.Generator
    output_lengths: np.random.Generator
    think_times: np.random.Generator
    turns: np.random.Generator
    rate_scale: np.random.Generator
    adapters: np.random.Generator


def random_streams(seed: int) -> RandomStreams:
    """The streams that belong to ``seed``. Raises :class:`WorkloadError` if it is negative."""
    if seed < 0:
        raise WorkloadError(f"the seed is {seed}; give a whole number of 0 or more")
    children = np.random.SeedSequence(seed).spawn(len(RandomStreams._fields))
    return RandomStreams(*map(np.random.default_rng, children))
