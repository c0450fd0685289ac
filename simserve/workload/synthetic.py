"""Workloads drawn at random: arrivals and lengths from one seed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from simserve.errors import WorkloadError
from simserve.workload.arrivals import poisson_arrivals
from simserve.workload.lengths import ConstantLength
from simserve.workload.workload import Workload


def synthetic_workload(num_prompts: int, request_rate: float, input_len: int, output_len: int, seed: int) -> Workload:
    """``num_prompts`` requests in a Poisson process of ``request_rate`` per second (inf: all at 0).

    ``input_len`` and ``output_len`` are tokens per request. The same arguments give the same workload on every machine,
    and arrivals have a random stream of their own, so that another choice of lengths leaves them as they are.
    Raises :class:`WorkloadError` for a count or length below 1, a rate not above 0 or a negative seed.
    """
    if num_prompts < 1:
        raise WorkloadError(f"a workload of {num_prompts} requests is empty; give at least 1")
    streams = random_streams(seed)
    return Workload(
        name=f"synthetic-{num_prompts}x{input_len}+{output_len}@{request_rate:g}",
        arrival_s=poisson_arrivals(streams.arrivals, num_prompts, request_rate),
        input_tokens=ConstantLength(input_len).draw(streams.input_lengths, num_prompts),
        output_tokens=ConstantLength(output_len).draw(streams.output_lengths, num_prompts),
    )


class RandomStreams(NamedTuple):
    """Independent generators, one per thing drawn: drawing more from one never shifts another.

    A new stream goes at the end, which leaves the earlier ones (and every published result) unchanged.
    """

    arrivals: np.random.Generator
    input_lengths: np.random.Generator
    output_lengths: np.random.Generator


def random_streams(seed: int) -> RandomStreams:
    """The streams that belong to ``seed``. Raises :class:`WorkloadError` if it is negative."""
    if seed < 0:
        raise WorkloadError(f"the seed is {seed}; give a whole number of 0 or more")
    children = np.random.SeedSequence(seed).spawn(len(RandomStreams._fields))
    return RandomStreams(*map(np.random.default_rng, children))
