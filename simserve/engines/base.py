"""The seam between the server and whatever generates: all that ``server/`` knows of an engine.

Two engines speak it: the simulated one, paced on the wall clock, and the real torch one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class GenerationRequest:
    """One sequence to generate: what a handler hands to :meth:`Engine.submit`.

    ``prompt_token_ids`` decide the KV blocks and the prefix-cache hits. Generation ends after ``max_tokens`` tokens,
    or after ``output_tokens`` if the caller already knows that the answer is shorter (a stop string in simulated text).
    Requests with another ``cache_salt`` share no KV blocks with this one.
    """

    request_id: str
    prompt_token_ids: Sequence[int]
    max_tokens: int
    output_tokens: int | None = None
    priority: int = 0
    cache_salt: str = ""


@dataclass(frozen=True)
class TokenEvent:
    """``tokens`` more tokens came out of a step.

    ``index`` counts the tokens produced before this event, ``time_s`` is the simulated time at which the step ended,
    ``finish_reason`` is None until the last event: then "length", "stop" or "abort". ``timing`` comes with the last.
    """

    index: int
    tokens: int
    time_s: float
    finish_reason: str | None = None
    timing: RequestTiming | None = None


@dataclass(frozen=True)
class RequestTiming:
    """The engine's own times of a request, in seconds on its clock; ``cached_tokens`` came from the prefix cache."""

    arrival_s: float
    scheduled_s: float
    first_token_s: float
    finish_s: float
    cached_tokens: int
    preemptions: int


@dataclass(frozen=True)
class EngineStatus:
    """A snapshot for ``GET /status``; memory is that of the KV cache, in bytes, blocks beside it."""

    clock_s: float
    waiting_requests: int
    running_requests: int
    completed_requests: int
    aborted_requests: int
    steps: int
    inflight_batches: int
    kv_blocks_total: int
    kv_blocks_used: int
    kv_block_bytes: int
    extra: dict[str, object] = field(default_factory=dict)


class Engine(Protocol):
    """What the server needs of an engine; all methods are called on the server's event loop and never block it."""

    @property
    def max_model_len(self) -> int:
        """Most tokens, prompt and answer together, that one sequence may have."""
        ...

    def describe(self) -> dict[str, object]:
        """Model, hardware profile, whether calibrated, KV blocks and policy: for the start-up log and ``/status``."""
        ...

    async def start(self) -> None:
        """Begin to serve; the engine's clock starts at 0."""
        ...

    async def stop(self) -> None:
        """Stop, ending every open stream with finish reason "abort"."""
        ...

    def submit(self, request: GenerationRequest) -> AsyncIterator[TokenEvent]:
        """Queue ``request`` now; iterate to receive its tokens as steps end.

        Closing the iterator (a client that hung up) aborts the request and frees its KV blocks at once.
        Raises :class:`simserve.errors.RequestError` if the request can never be served.
        """
        ...

    def status(self) -> EngineStatus:
        """What is going on right now; cheap enough to call at every request."""
        ...
