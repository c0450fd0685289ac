"""What a planner makes of a request: sequences for the engine, and how to read what comes back.

There is a planner for each kind of engine. The routes know only what is in this file.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from simserve.engines.base import GenerationRequest, TokenEvent
from simserve.server.errors import ApiError
from simserve.server.fields import Prompt
from simserve.server.protocol import ChatRequest, CompletionRequest
from simserve.server.unsupported import Unsupported

# Above this the work is done in a thread, so that one long prompt does not hold up all other streams.
INLINE_PROMPT_CHARACTERS = 20_000

Result = TypeVar("Result")


@dataclass(frozen=True)
class Piece:
    """What an engine's event adds to an answer; ``logprobs`` is OpenAI's object for just its tokens.

    ``finish_reason`` comes with the last; so does ``stop_reason``, the stop string or token that ended the answer.
    """

    text: str
    finish_reason: str | None = None
    logprobs: Mapping[str, Any] | None = None
    stop_reason: str | int | None = None


class Choice(Protocol):
    """One sequence to generate; give :meth:`read` each of its events, once and in order."""

    @property
    def index(self) -> int: ...

    @property
    def sequence(self) -> GenerationRequest: ...

    @property
    def pieces(self) -> Sequence[str] | None:
        """The text of each token where all of it is known beforehand, else None; :meth:`read` tells the same."""
        ...

    def read(self, event: TokenEvent) -> Piece:
        """What ``event`` adds to the answer."""
        ...


@dataclass(frozen=True)
class Plan:
    """All choices of one HTTP request; ``prompt_tokens`` counts each of the ``prompts`` once, however many choices.

    ``is_settled`` says that the answers are already known to be as long as their sequences may become.
    """

    prompts: int
    prompt_tokens: int
    choices: Sequence[Choice]
    is_settled: bool

    @property
    def output_tokens(self) -> int:
        """Tokens of all answers together, or the most that there may be."""
        sequences = [choice.sequence for choice in self.choices]
        return sum(one.max_tokens if one.output_tokens is None else one.output_tokens for one in sequences)


class Planner(Protocol):
    """Turns requests into plans for one kind of engine, which cannot honour the ``unsupported`` fields."""

    unsupported: Unsupported

    async def chat(self, request: ChatRequest, request_id: str) -> Plan:
        """Plan a chat completion; raises :class:`ApiError` if the prompt does not fit the context."""
        ...

    async def completion(self, request: CompletionRequest, request_id: str) -> Plan:
        """Plan a completion of one or many prompts; raises :class:`ApiError` if one does not fit the context."""
        ...

    async def token_ids(self, prompts: Sequence[Prompt], param: str) -> list[list[int]]:
        """See :func:`tokenized`, by the model's own tokenizer."""
        ...


def check_prompt(tokens: Sequence[int], max_model_len: int, param: str) -> None:
    """Raise :class:`ApiError` for a prompt that is empty or leaves no room for an answer."""
    if not tokens:
        raise ApiError("The prompt is empty; give at least one token.", param=param)
    if len(tokens) >= max_model_len:
        raise ApiError(
            f"This model's maximum context length is {max_model_len} tokens. However, your prompt contains"
            f" {len(tokens)} input tokens, which leaves none for the answer; shorten it.",
            param=param,
            code="context_length_exceeded",
        )


def check_limit(limit: int | None, max_model_len: int) -> None:
    """Raise :class:`ApiError` for an answer longer than the whole context, as vLLM does; others are cut to fit."""
    if limit is not None and limit > max_model_len:
        raise ApiError(
            f"This model's maximum context length is {max_model_len} tokens, and {limit} are asked for the "
            "answer alone; ask for fewer.",
            param="max_tokens",
            code="context_length_exceeded",
        )


async def tokenized(
    prompts: Sequence[Prompt], encode: Callable[[str], list[int]], max_model_len: int, vocab_size: int, param: str
) -> list[list[int]]:
    """Texts and token ids as token ids; raises :class:`ApiError` naming ``param`` for what the model cannot read."""

    def tokenize() -> list[list[int]]:
        return [encode(prompt) if isinstance(prompt, str) else prompt for prompt in prompts]

    characters = sum(len(prompt) for prompt in prompts if isinstance(prompt, str))
    encoded = await run(tokenize, in_thread=characters > INLINE_PROMPT_CHARACTERS)
    for prompt, tokens in zip(prompts, encoded, strict=True):
        check_prompt(tokens, max_model_len, param)
        if not isinstance(prompt, str) and max(tokens) >= vocab_size:
            raise ApiError(f"Token id {max(tokens)} is not in the model's vocabulary of {vocab_size}.", param=param)
    return encoded


async def run(work: Callable[[], Result], *, in_thread: bool) -> Result:
    """Do ``work``, which is long enough for a thread or not."""
    return await asyncio.to_thread(work) if in_thread else work()
