"""What an engine did, step by step, and what each request saw of it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from simserve.scheduling import Request, StepPlan

Floats = npt.NDArray[np.float64]


class ChunkOf(NamedTuple):
    """A prefill chunk of somebody; it ``samples`` where it ends what is known of the sequence."""

    request_id: Hashable
    tokens: int
    cached_tokens: int
    samples: bool


@dataclass(frozen=True)
class Composition:
    """Who is in a step: decodes by id in the engine's order, and chunks."""

    decodes: tuple[Hashable, ...]
    decode_context_tokens: int
    chunks: tuple[ChunkOf, ...]

    @classmethod
    def of(cls, plan: StepPlan, name: Callable[[Hashable], Hashable] = lambda request_id: request_id) -> Composition:
        """What ``plan``, scheduled with its decodes listed, computes; ``name`` turns ids into those to compare."""
        return cls(
            tuple(name(request.request_id) for request in plan.decodes),
            plan.decode_context_tokens,
            tuple(
                ChunkOf(name(chunk.request.request_id), chunk.tokens, chunk.context_tokens, chunk.samples)
                for chunk in plan.chunks
            ),
        )

    @property
    def sampled(self) -> list[Hashable]:
        """Who gets a token."""
        return [*self.decodes, *(chunk.request_id for chunk in self.chunks if chunk.samples)]

    @property
    def kind(self) -> str:
        """``decode``, ``prefill`` or ``mixed``."""
        return "decode" if not self.chunks else "mixed" if self.decodes else "prefill"

    @property
    def lengths(self) -> list[tuple[int, int]]:
        """(tokens, tokens cached before) of each chunk."""
        return [(chunk.tokens, chunk.cached_tokens) for chunk in self.chunks]


@dataclass(frozen=True)
class LedgerStep:
    """One step: when the engine looked for requests, and how long until it looked again."""

    composition: Composition
    start_s: float
    duration_s: float


@dataclass(frozen=True)
class RequestTimes:
    """When each request came, had its first and its last token; seconds since the run's start, by request."""

    arrival_s: Floats
    first_token_s: Floats
    finish_s: Floats
    output_tokens: Floats

    @classmethod
    def of(cls, requests: Sequence[Request]) -> RequestTimes:
        """Of ``requests`` that have all finished."""

        def column(name: str) -> Floats:
            return np.array([getattr(request, name) for request in requests], dtype=np.float64)

        return cls(column("arrival_s"), column("first_token_s"), column("finish_s"), column("produced_tokens"))

    @property
    def latencies_s(self) -> dict[str, Floats]:
        """TTFT, TPOT and E2E of each request; NaN where there is no second token."""
        later = np.where(self.output_tokens > 1, self.output_tokens - 1, np.nan)
        return {
            "TTFT": self.first_token_s - self.arrival_s,
            "TPOT": (self.finish_s - self.first_token_s) / later,
            "E2E": self.finish_s - self.arrival_s,
        }


@dataclass(frozen=True)
class EngineRun:
    """One run of the real engine: its ledger, and its requests in order of arrival."""

    steps: list[LedgerStep]
    times: RequestTimes
    disturbance: str | None = None
    """Who else used the machine meanwhile; None if nobody did."""
