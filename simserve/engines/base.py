"""The seam between the server and whatever generates: all that ``server/`` knows of an engine.

Two engines speak it: the simulated one, paced on the wall clock, and the real torch one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class SamplingParams:
    """How a real engine chooses tokens and when it stops; names, meanings and defaults are vLLM's.

    ``temperature`` 0 takes the likeliest token. ``top_k`` 0 or -1, ``top_p`` 1 and ``min_p`` 0 leave every token in.
    ``repetition_penalty`` looks at prompt and answer, the other two at the answer alone. The same ``seed`` gives the
    same tokens whatever else is in the batch; None draws one. A ``stop`` string ends the answer before it, or behind
    it with ``include_stop``; neither stop strings nor stop tokens nor the model's end token (unless ``ignore_eos``)
    end it before ``min_tokens`` tokens. ``logprobs`` asks for each token's logprob and that many of the likeliest in
    its place. ``logit_bias`` is added to the logits of token ids. Special tokens leave no text with
    ``skip_special_tokens``.

    The simulated engine takes no notice of any of this: its answer is settled before it is asked.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    include_stop: bool = False
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    min_tokens: int = 0
    logprobs: int | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    skip_special_tokens: bool = True


@dataclass(frozen=True)
class GenerationRequest:
    """One sequence to generate: what a handler hands to :meth:`Engine.submit`.

    ``prompt_token_ids`` decide the KV blocks and the prefix-cache hits. Generation ends after ``max_tokens`` tokens,
    or after ``output_tokens`` if the caller already knows that the answer is shorter (a stop string in simulated text).
    Requests with another ``cache_salt`` share no KV blocks with this one. Those of one ``session`` come from one user,
    which a cluster's router may look at. ``adapter`` names the LoRA adapter that is asked for, if any, and
    ``adapter_number`` the number under which it was loaded.
    """

    request_id: str
    prompt_token_ids: Sequence[int]
    max_tokens: int
    output_tokens: int | None = None
    priority: int = 0
    sampling: SamplingParams = SamplingParams()
    cache_salt: str = ""
    session: str | None = None
    adapter: str = ""
    adapter_number: int = 0


@dataclass(frozen=True)
class TokenLogprob:
    """Natural logarithm of a sampled token's probability, as the model gives it: before temperature and penalties.

    ``top`` are the likeliest tokens in its place with theirs, likeliest first.
    """

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class TokenEvent:
    """``tokens`` more tokens came out of a step.

    ``index`` counts the tokens produced before this event, ``time_s`` is the engine's time at which the step ended,
    ``finish_reason`` is None until the last event: then "length", "stop", "abort" or "error", which ``error``
    explains in a sentence. ``timing`` comes with the last; so does ``stop_reason``, the stop string or the id of the
    token that ended the answer, None for the model's own end token.

    A real engine says what the tokens are: ``token_ids`` one by one, ``logprobs`` if asked for, and the ``text`` that
    can be told so far, which may be that of earlier tokens: half a character waits for its rest, and what may be the
    beginning of a stop string until it is not. A simulated engine leaves these empty.
    """

    index: int
    tokens: int
    time_s: float
    finish_reason: str | None = None
    timing: RequestTiming | None = None
    text: str = ""
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    stop_reason: str | int | None = None
    error: str | None = None


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
    """A snapshot for ``GET /status``; memory is that of the KV cache, in bytes, blocks beside it.

    ``failure`` says in a sentence why the engine serves nobody any more; None while it does.
    """

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
    failure: str | None = None


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
        Raises :class:`simserve.errors.RequestError` if the request can never be served, and
        :class:`simserve.errors.EngineError` if the engine cannot go on at all.
        """
        ...

    def status(self) -> EngineStatus:
        """What is going on right now; cheap enough to call at every request."""
        ...
