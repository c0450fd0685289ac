"""Workloads drawn at random: arrivals and lengths from one seed."""

from __future__ import annotations

from simserve.errors import WorkloadError
from simserve.workload.arrivals import ArrivalProcess, SteadyArrivals
from simserve.workload.lengths import ConstantLength, LengthDistribution
from simserve.workload.streams import random_streams
from simserve.workload.workload import Workload


def synthetic_workload(
    num_prompts: int,
    request_rate: float | ArrivalProcess,
    input_len: int | LengthDistribution,
    output_len: int | LengthDistribution,
    seed: int,
) -> Workload:
    """``num_prompts`` requests; a number for ``request_rate`` is a Poisson process of so many per second (inf: at 0).

    ``input_len`` and ``output_len`` are tokens per request. The same arguments give the same workload on every machine,
    and arrivals have a random stream of their own, so that another choice of lengths leaves them as they are.
    Raises :class:`WorkloadError` for a count or length below 1, a rate not above 0 or a negative seed.
    """
    if num_prompts < 1:
        raise WorkloadError(f"a workload of {num_prompts} requests is empty; give at least 1")
    arrivals = SteadyArrivals(request_rate) if isinstance(request_rate, int | float) else request_rate
    inputs, outputs = as_distribution(input_len), as_distribution(output_len)
    streams = random_streams(seed)
    return Workload(
        name=f"synthetic-{num_prompts}x{inputs}+{outputs}@{arrivals}",
        arrival_s=arrivals.draw(streams.arrivals, num_prompts),
        input_tokens=inputs.draw(streams.input_lengths, num_prompts),
        output_tokens=outputs.draw(streams.output_lengths, num_prompts),
    )


def as_distribution(length: int | LengthDistribution) -> LengthDistribution:
    """A plain number of tokens is the same for all."""
    return ConstantLength(length) if isinstance(length, int) else length
