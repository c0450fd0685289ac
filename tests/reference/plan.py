"""What one engine step does, every decode by name."""

from __future__ import annotations

from dataclasses import dataclass, field

from reference.request import Request


@dataclass(frozen=True)
class PrefillChunk:
    """``tokens`` tokens of a prompt computed on top of ``context_tokens`` already in the KV cache.

    ``samples`` says whether the chunk reaches the end of the known tokens, so that the step also yields a token.
    """

    request: Request
    tokens: int
    context_tokens: int
    samples: bool


@dataclass
class StepPlan:
    """One step: prefill chunks, and decodes of one token each.

    ``decode_context_tokens`` is the sum of the decodes' contexts: tokens in the cache before the step. ``preempted``
    lost their blocks while this step was planned; ``padding`` are rows that are
    computed for nobody. An empty plan means that nothing can run now.
    """

    index: int
    chunks: list[PrefillChunk] = field(default_factory=list)
    decodes: list[Request] = field(default_factory=list)
    decode_context_tokens: int = 0
    preempted: list[Request] = field(default_factory=list)
    padding: int = 0

    @property
    def is_empty(self) -> bool:
        return not self.chunks and not self.decodes

    @property
    def num_decodes(self) -> int:
        return len(self.decodes) + self.padding

    @property
    def tokens(self) -> int:
        """Tokens computed by the step: rows of its GEMMs."""
        return self.num_decodes + sum(chunk.tokens for chunk in self.chunks)

    @property
    def num_sampled(self) -> int:
        """Tokens sampled by the step: rows of the lm_head."""
        return len(self.sampled) + self.padding

    @property
    def sampled(self) -> list[Request]:
        """Requests that get a token from this step."""
        return self.decodes + [chunk.request for chunk in self.chunks if chunk.samples]
