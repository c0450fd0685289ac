"""Hands out the tokens of finished steps, in order and in slices, and keeps account of how late that was.

What the next step's tokens will need is made ready when nothing is due, so that a pass has little more to do than to
write: who is last of many waits for all others.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from simserve.engines.base import GenerationRequest, RequestTiming
from simserve.engines.clock import AT_ONCE
from simserve.engines.lead import Lead
from simserve.engines.streams import TokenStream
from simserve.metrics.rolling import Punctuality
from simserve.scheduling import Request

TOKENS_PER_LOOK = 16
"""Tokens handed out between two looks at the clock."""


PREPARE_SLICE_S = 0.0002
"""Longest stretch of making ready: others may have something due at any time."""


class LiveRequest(Request):
    """A request of the scheduler and the stream that somebody listens to."""

    __slots__ = ("adapter", "adapter_name", "max_tokens", "stream")

    def __init__(
        self,
        request: GenerationRequest,
        stream: TokenStream,
        *,
        arrival_s: float,
        unit_tokens: int,
    ) -> None:
        known_length = request.max_tokens if request.output_tokens is None else request.output_tokens
        super().__init__(
            request.request_id,
            len(request.prompt_token_ids),
            min(known_length, request.max_tokens),
            arrival_s=arrival_s,
            unit_tokens=unit_tokens,
            priority=request.priority,
            session=request.session,
        )
        self.max_tokens = request.max_tokens
        self.adapter = 0
        self.adapter_name = ""
        self.stream = stream

    @property
    def finish_reason(self) -> str:
        """Of a request that had its last token."""
        return "length" if self.produced_tokens >= self.max_tokens else "stop"

    @property
    def timing(self) -> RequestTiming:
        """Of a request that had its last token."""
        return RequestTiming(
            arrival_s=self.arrival_s,
            scheduled_s=self.scheduled_s,
            first_token_s=self.first_token_s,
            finish_s=self.finish_s,
            cached_tokens=self.cached_tokens,
            preemptions=self.preemptions,
        )


class _Tokens(NamedTuple):
    """The tokens of one step that are still to be handed out, and the requests that end with them."""

    sampled: Sequence[LiveRequest]
    left: Iterator[LiveRequest]
    finished: Sequence[LiveRequest]
    time_s: float
    due_wall_s: float


class HandOut:
    """A queue of steps whose tokens are due."""

    def __init__(self) -> None:
        self.punctuality = Punctuality()
        self.lead = Lead()
        self._began_wall_s: float | None = None
        """When a pass over the first step's tokens began, if one has."""
        self._steps: deque[_Tokens] = deque()
        self._unprepared: Iterator[LiveRequest] = iter(())

    def add(
        self, sampled: Sequence[LiveRequest], finished: Sequence[LiveRequest], time_s: float, due_wall_s: float
    ) -> None:
        """A step ended at simulated ``time_s``, due at ``due_wall_s`` by the wall's clock (AT_ONCE: nobody counts)."""
        self._steps.append(_Tokens(sampled, iter(sampled), finished, time_s, due_wall_s))

    def work(self, until_wall_s: float) -> bool:
        """Hand out what there is, until the wall's clock shows ``until_wall_s``; whether nothing is left."""
        while self._steps:
            step = self._steps[0]
            if not self._hand_out(step, until_wall_s):
                return False
            for request in step.finished:
                request.stream.finish(request.finish_reason, step.time_s, request.timing)
            self._steps.popleft()
            if step.sampled and step.due_wall_s != AT_ONCE:
                self._unprepared = iter(step.sampled)
        return True

    def prepare(self, until_wall_s: float) -> bool:
        """Have streams make ready what their next token will need, for a short while; whether all have."""
        until_wall_s = min(until_wall_s, time.monotonic() + PREPARE_SLICE_S)
        for count, request in enumerate(self._unprepared, 1):
            request.stream.prepare()
            if count % TOKENS_PER_LOOK == 0 and time.monotonic() >= until_wall_s:
                return False
        return True

    def _hand_out(self, step: _Tokens, until_wall_s: float) -> bool:
        time_s, count = step.time_s, 0
        if self._began_wall_s is None:
            self._began_wall_s = time.monotonic()
        for request in step.left:
            request.stream.push(time_s)
            count += 1
            if count == TOKENS_PER_LOOK:
                now = self._note(step, count)
                count = 0
                if now >= until_wall_s:
                    return False
        if count:
            self._note(step, count)
        self.lead.took(len(step.sampled), time.monotonic() - self._began_wall_s)
        self._began_wall_s = None
        return True

    def _note(self, step: _Tokens, count: int) -> float:
        """The last ``count`` tokens are out; returns the time."""
        now = time.monotonic()
        if step.due_wall_s != AT_ONCE:
            self.punctuality.add(now - step.due_wall_s, count)
        return now
