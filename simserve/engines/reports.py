"""What an engine tells those who count: metrics, the trace of what was served, the dashboard.

All of it comes in sums: once when a request arrives, once for each step, once when a request has ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from simserve.engines.base import RequestTiming


class FirstToken(NamedTuple):
    """A request got its first token, ``ttft_s`` after it arrived; ``cached_tokens`` of its prompt were found."""

    ttft_s: float
    input_tokens: int
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request came at ``time_s``."""

    request_id: str
    time_s: float
    input_tokens: int


@dataclass(frozen=True, slots=True)
class StepReport:
    """One step of the engine, from ``start_s`` to ``end_s`` on its clock.

    ``prefill_tokens`` were computed in ``prefill_chunks`` chunks beside ``decodes`` decodes, and ``output_tokens`` came
    out. ``gaps`` are (seconds since a sequence's token before, how many) of those that were not first tokens.
    """

    start_s: float
    end_s: float
    decodes: int
    prefill_chunks: int
    prefill_tokens: int
    output_tokens: int
    preempted: int
    gaps: Sequence[tuple[float, int]]
    first_tokens: Sequence[FirstToken]


@dataclass(frozen=True, slots=True)
class Ending:
    """A request has ended: ``finish_reason`` is "length", "stop", or "abort" or "error", which have no ``timing``.

    Its prompt begins with the blocks ``prefix_hashes``, each of ``unit_tokens`` tokens, chained as in
    :func:`simserve.workload.block_hashes`; there are none where the engine had no use for them. ``replica`` is the name
    of the one that had it last, "" if none had, and None for an engine that is only one.
    ``adapter`` is the name of the LoRA adapter that it had, if it cost anything.
    """

    request_id: str
    time_s: float
    arrival_s: float
    finish_reason: str
    input_tokens: int
    output_tokens: int
    max_tokens: int
    cached_tokens: int
    prefix_hashes: Sequence[int]
    unit_tokens: int
    timing: RequestTiming | None
    replica: str | None = None
    adapter: str = ""


class EngineObserver(Protocol):
    """Is told everything at once, on the event loop, and must be quick: a microsecond or a few."""

    def arrived(self, arrival: Arrival) -> None: ...

    def step_done(self, step: StepReport) -> None: ...

    def ended(self, ending: Ending) -> None: ...
