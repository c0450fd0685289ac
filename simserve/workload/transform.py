"""The same trace under other conditions: a part of it, faster, or with more or fewer requests.

Pure functions from workload to workload. What requests share of their prompts goes with them.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from simserve.errors import WorkloadError
from simserve.workload.streams import random_streams
from simserve.workload.workload import PrefixUnits, Workload


def speed_up(workload: Workload, factor: float) -> Workload:
    """Let time run ``factor`` times faster: the same requests in ``1 / factor`` of the time."""
    if not 0 < factor < math.inf:
        raise WorkloadError(f"a speed of {factor:g} cannot be; give more than 0: 2 is twice as fast")
    return replace(workload, arrival_s=workload.arrival_s / factor)


def cut_window(workload: Workload, start_s: float, length_s: float) -> Workload:
    """The requests that arrive from ``start_s`` on and before ``start_s + length_s``, which becomes time 0 on."""
    check_window(start_s, length_s)
    first, end = np.searchsorted(workload.arrival_s, [start_s, start_s + length_s], side="left")
    if first == end:
        raise WorkloadError(
            f"{workload.name} has no request from {start_s:g} s to {start_s + length_s:g} s; its last is at"
            f" {workload.arrival_s[-1]:.1f} s"
        )
    rows = np.arange(first, end)
    return workload.take(rows, workload.arrival_s[rows] - start_s)


def check_window(start_s: float, length_s: float) -> None:
    """Raise :class:`WorkloadError` if these are no part of a trace."""
    if not (0 <= start_s < math.inf and length_s > 0):
        raise WorkloadError(
            f"a window of {length_s:g} s from {start_s:g} s on cannot be; start at 0 or later and last more than 0"
        )


def drop_long_prompts(workload: Workload, max_input_tokens: int) -> Workload:
    """Without the requests whose prompt is longer than ``max_input_tokens``; the others arrive when they did."""
    rows = np.flatnonzero(workload.input_tokens <= max_input_tokens)
    if not rows.size:
        raise WorkloadError(
            f"no prompt of {workload.name} has {max_input_tokens} tokens or less; its shortest has"
            f" {workload.input_tokens.min()}"
        )
    return workload.take(rows)


def scale_rate(workload: Workload, factor: float, seed: int) -> Workload:
    """``factor`` times as many requests over the same time; lengths are those of the originals.

    Each request comes ``floor(factor)`` times, and once more with the chance that is left: a factor below 1 thins.
    A copy arrives at a random moment between its original and the next arrival, since copies at one instant would make
    bursts that no larger crowd makes. First copies are a second crowd, second copies a third: like the original one,
    each shares prompt prefixes within itself and none with the others. (Copies with their originals' prompts would all
    be found in the prefix cache, and more load would look cheaper than less.)
    """
    if not 0 < factor < math.inf:
        raise WorkloadError(f"a rate scale of {factor:g} cannot be; give more than 0: 0.5 keeps half of the requests")
    rng = random_streams(seed).rate_scale
    times = math.floor(factor) + (rng.random(len(workload)) < factor % 1)
    rows = np.repeat(np.arange(len(workload)), times)
    if not rows.size:
        raise WorkloadError(f"a rate scale of {factor:g} leaves no request of {workload.name}; give more")
    crowd = np.arange(len(rows)) - np.repeat(np.cumsum(times) - times, times)
    gap_s = np.append(np.diff(workload.arrival_s), 0.0)[rows]
    arrival_s = workload.arrival_s[rows] + np.where(crowd > 0, rng.random(len(rows)) * gap_s, 0.0)
    order = np.argsort(arrival_s, kind="stable")
    scaled = workload.take(rows[order], arrival_s[order])
    return replace(scaled, prefix=scaled.prefix and _renamed(scaled.prefix, crowd[order]))


def _renamed(prefix: PrefixUnits, crowd: np.typing.NDArray[np.int64]) -> PrefixUnits:
    """``prefix`` with ids of its own for each crowd; ``crowd`` has one entry per row."""
    names, ids = np.unique(prefix.ids, return_inverse=True)
    return replace(prefix, ids=ids + np.repeat(crowd, np.diff(prefix.offsets)) * len(names))
