"""A request of the torch engine: the scheduler's request, and the tokens that it is about."""

from __future__ import annotations

import secrets
from collections.abc import Sequence as Tokens
from hashlib import blake2b

import torch

from simserve.engines.base import SamplingParams
from simserve.scheduling import Request

UNIFORM_BITS = 24
"""Of a float32's mantissa, so that every number drawn is exact and below 1."""


class Sequence(Request):
    """Prompt and answer as token ids; ``pages`` is where its KV lies, as the scheduler's cache has it.

    ``penalty_counts`` and ``prompt_seen`` [vocabulary] belong to the sampler.
    """

    def __init__(
        self,
        request_id: str,
        prompt_token_ids: Tokens[int],
        max_tokens: int,
        sampling: SamplingParams,
        *,
        priority: int = 0,
        units: Tokens[int] = (),
        unit_tokens: int = 0,
    ) -> None:
        super().__init__(
            request_id, len(prompt_token_ids), max_tokens, units=units, unit_tokens=unit_tokens, priority=priority
        )
        self.token_ids = list(prompt_token_ids)
        self.sampling = sampling
        self.seed = secrets.randbits(63) if sampling.seed is None else sampling.seed
        self.pages: list[int] = []
        self.penalty_counts: torch.Tensor | None = None
        self.prompt_seen: torch.Tensor | None = None
        self.counted_tokens = 0

    @property
    def answer_tokens(self) -> int:
        """Tokens generated so far."""
        return len(self.token_ids) - self.input_tokens

    def uniform(self) -> float:
        """The number in [0, 1) that decides the next token: a function of seed and place alone."""
        digest = blake2b(b"%d:%d" % (self.seed, self.answer_tokens), digest_size=8).digest()
        return (int.from_bytes(digest, "little") >> (64 - UNIFORM_BITS)) / (1 << UNIFORM_BITS)
