"""What one engine step does: the scheduler's answer, the step timer's and the real engine's input."""

from __future__ import annotations

import math
from collections.abc import Sequence

from simserve.scheduling.request import NONE, Request


class PrefillChunk:
    """``tokens`` tokens of a prompt computed on top of ``context_tokens`` already in the KV cache.

    ``samples`` says whether the chunk reaches the end of the known tokens, so that the step also yields a token.
    """

    __slots__ = ("context_tokens", "request", "samples", "tokens")

    def __init__(self, request: Request, tokens: int, context_tokens: int, samples: bool) -> None:
        self.request = request
        self.tokens = tokens
        self.context_tokens = context_tokens
        self.samples = samples

    def __repr__(self) -> str:
        return f"PrefillChunk({self.request.request_id!r}, {self.tokens} on {self.context_tokens})"


class Stall:
    """``count`` decodes that all got their last token at ``last_token_s`` and wait since step ``step``."""

    __slots__ = ("count", "last_token_s", "step")

    def __init__(self, step: int, count: int) -> None:
        self.step = step
        self.count = count
        self.last_token_s = math.nan


class StepPlan:
    """One step: prefill chunks, and decodes of one token each; or, if ``repeat`` > 1, so many steps of equal decodes.

    ``decode_context_tokens`` is the sum of the decodes' contexts, tokens in the cache before the (first) step.
    ``decodes`` names them only where the scheduler was asked to. ``returning`` are decodes that had no token in the
    step before, ``pausing`` requests that had one there and get none here: preempted, or out of budget.
    Where all decodes wait for prompts (``decodes_wait``), they are ``stalling`` together, and ``resuming`` later.
    ``padding`` of the decodes are rows that are computed and yield a token to nobody.
    An empty plan means that nothing can run now.
    """

    __slots__ = (
        "chunks", "decode_context_tokens", "decodes", "decodes_wait", "index", "num_decodes", "num_sampled_chunks",
        "padding", "pausing", "preempted", "prefill_tokens", "repeat", "resuming", "returning", "stalling",
    )  # fmt: skip

    def __init__(self, index: int) -> None:
        self.index = index
        self.chunks: list[PrefillChunk] = NONE
        self.prefill_tokens = 0
        self.num_sampled_chunks = 0
        self.num_decodes = 0
        self.decode_context_tokens = 0
        self.decodes: Sequence[Request] = ()
        self.returning: list[Request] = NONE
        self.pausing: list[Request] = NONE
        self.preempted: list[Request] = NONE
        self.decodes_wait = False
        self.stalling: Stall | None = None
        self.resuming: Sequence[Stall] = ()
        self.padding = 0
        self.repeat = 1

    def add_chunk(self, chunk: PrefillChunk) -> None:
        if self.chunks:
            self.chunks.append(chunk)
        else:
            self.chunks = [chunk]
        self.prefill_tokens += chunk.tokens
        self.num_sampled_chunks += chunk.samples

    def remove_chunk(self, chunk: PrefillChunk) -> None:
        self.chunks.remove(chunk)
        self.prefill_tokens -= chunk.tokens
        self.num_sampled_chunks -= chunk.samples

    def add_returning(self, request: Request) -> None:
        if self.returning:
            self.returning.append(request)
        else:
            self.returning = [request]

    def add_pausing(self, request: Request) -> None:
        if self.pausing:
            self.pausing.append(request)
        else:
            self.pausing = [request]

    def add_preempted(self, request: Request) -> None:
        if self.preempted:
            self.preempted.append(request)
        else:
            self.preempted = [request]

    @property
    def is_empty(self) -> bool:
        return self.num_decodes == 0 and not self.chunks

    @property
    def tokens(self) -> int:
        """Tokens computed by one step: rows of its GEMMs."""
        return self.num_decodes + self.prefill_tokens

    @property
    def num_sampled(self) -> int:
        """Tokens sampled by one step: rows of the lm_head."""
        return self.num_decodes + self.num_sampled_chunks

    @property
    def sampled(self) -> list[Request]:
        """Requests that get a token from this step, if ``decodes`` were asked for."""
        return [*self.decodes, *(chunk.request for chunk in self.chunks if chunk.samples)]

    def __repr__(self) -> str:
        return (
            f"StepPlan({self.index}, {self.num_decodes} decodes on {self.decode_context_tokens}, {self.chunks}, "
            f"x{self.repeat})"
        )
