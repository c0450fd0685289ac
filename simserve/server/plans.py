"""What a planner makes of a request: sequences for the engine, and how to read what comes back.

There is a planner for each kind of engine. The routes know only what is in this file.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from simserve.engines.base import GenerationRequest, TokenEvent
from simserve.server.errors import ApiError
from simserve.server.fields import Prompt
from simserve.server.logprobs import joined
from simserve.server.protocol import ChatRequest, CompletionRequest
from simserve.server.unsupported import Unsupported

# Above this the work is done in a thread, so that one long prompt does not hold up all other streams.
INLINE_PROMPT_CHARACTERS = 8_000

Result = TypeVar("Result")


@dataclass(frozen=True)
class ToolDelta:
    """What becomes known of a tool call: ``id`` and ``name`` at once, its ``arguments``, which are JSON, bit by bit."""

    index: int
    arguments: str
    id: str | None = None
    name: str | None = None


@dataclass(frozen=True)
class Piece:
    """What an engine's event adds to an answer; ``logprobs`` is OpenAI's object for just its tokens.

    ``finish_reason`` comes with the last; so does ``stop_reason``, the stop string or token that ended the answer.
    """

    text: str
    finish_reason: str | None = None
    logprobs: Mapping[str, Any] | None = None
    stop_reason: str | int | None = None
    reasoning: str = ""
    calls: tuple[ToolDelta, ...] = ()
    token_ids: tuple[int, ...] | None = None
    """Its tokens, where the client wants to know."""


def merged(pieces: Sequence[Piece]) -> Piece:
    """Several pieces that follow each other as one."""
    if len(pieces) == 1:
        return pieces[0]
    last = pieces[-1]
    logprobs = [piece.logprobs for piece in pieces if piece.logprobs is not None]
    return Piece(
        text="".join(piece.text for piece in pieces),
        finish_reason=last.finish_reason,
        logprobs=joined(logprobs) if logprobs else None,
        stop_reason=last.stop_reason,
        reasoning="".join(piece.reasoning for piece in pieces),
        calls=merged_calls([delta for piece in pieces for delta in piece.calls]),
        token_ids=None if last.token_ids is None else tuple(one for piece in pieces for one in piece.token_ids or ()),
    )


def merged_calls(deltas: Sequence[ToolDelta]) -> tuple[ToolDelta, ...]:
    """One delta for each call, with all that ``deltas`` say of it."""
    calls: dict[int, ToolDelta] = {}
    for delta in deltas:
        so_far = calls.get(delta.index)
        calls[delta.index] = delta if so_far is None else replace(so_far, arguments=so_far.arguments + delta.arguments)
    return tuple(calls.values())


class Choice(Protocol):
    """One sequence to generate; give :meth:`read` each of its events, once and in order."""

    @property
    def index(self) -> int: ...

    @property
    def sequence(self) -> GenerationRequest: ...

    @property
    def reasoning_tokens(self) -> int:
        """How many of the first tokens are reasoning, as far as that is known."""
        ...

    @property
    def is_silent(self) -> bool:
        """Whether the client wants no token of the answer at all, only what is told of the prompt."""
        ...

    @property
    def score(self) -> float:
        """Mean logprob of the whole answer's tokens, by which the best of several is chosen; 0 where none is."""
        ...

    @property
    def pieces(self) -> Sequence[str] | None:
        """The text of each token where all of it is known beforehand, else None; :meth:`read` tells the same."""
        ...

    def read(self, event: TokenEvent) -> Piece:
        """What ``event`` adds to the answer."""
        ...


@dataclass(frozen=True)
class Tells:
    """What vLLM's clients may want to know of tokens; ``prompt_logprobs`` has vLLM's list for each prompt."""

    token_ids: bool
    prompt_logprobs: Sequence[Any] | None = None


@dataclass(frozen=True)
class Plan:
    """All choices of one HTTP request; ``prompt_tokens`` counts each of the ``prompts`` once, however many choices.

    ``is_settled`` says that the answers are already known to be as long as their sequences may become.
    """

    prompts: int
    prompt_tokens: int
    choices: Sequence[Choice]
    is_settled: bool
    audio_tokens: int = 0
    returned: int | None = None
    """How many choices of each prompt are told, the best ones; None for all of them."""
    tells: Tells | None = None
    """What is told of tokens beside the answers; None for nothing."""

    @property
    def output_tokens(self) -> int:
        """Tokens of all answers together, or the most that there may be."""
        sequences = [choice.sequence for choice in self.choices]
        return sum(one.max_tokens if one.output_tokens is None else one.output_tokens for one in sequences)


Cut = Callable[[list[int]], list[int]]
"""What becomes of a prompt's tokens before they are looked at."""


def as_it_is(tokens: list[int]) -> list[int]:
    """Nothing is cut."""
    return tokens


class Planner(Protocol):
    """Turns requests into plans for one kind of engine, which cannot honour the ``unsupported`` fields."""

    unsupported: Unsupported

    async def chat(self, request: ChatRequest, request_id: str) -> Plan:
        """Plan a chat completion; raises :class:`ApiError` if the prompt does not fit the context."""
        ...

    async def completion(self, request: CompletionRequest, request_id: str) -> Plan:
        """Plan a completion of one or many prompts; raises :class:`ApiError` if one does not fit the context."""
        ...

    async def chat_prompt(self, request: ChatRequest) -> tuple[list[int], int]:
        """The tokens of a chat's prompt, however many, and how many of them are of sounds."""
        ...

    async def tokens_of(self, text: str, *, special: bool) -> list[int]:
        """The tokens of a text, with those that a completion's prompt begins with if they are wanted."""
        ...

    def text_of(self, tokens: Sequence[int]) -> str:
        """The text of token ids."""
        ...

    def check_ids(self, tokens: Sequence[int], param: str) -> None:
        """Raise :class:`ApiError` (400) for token ids that the model does not have."""
        ...

    def check_length(self, tokens: int, param: str) -> None:
        """Raise :class:`ApiError` (400) for what leaves no room in the context."""
        ...

    async def token_ids(self, prompts: Sequence[Prompt], param: str, cut: Cut = as_it_is) -> list[list[int]]:
        """See :func:`tokenized`, by the model's own tokenizer."""
        ...


class ReadsTokens(Protocol):
    """What counting needs of a tokenizer."""

    def text_of(self, token_ids: Sequence[int]) -> str:
        """The text of ``token_ids``, as far as they are known."""
        ...


class Counting:
    """What both kinds of planners can tell of tokens; for a subclass with a tokenizer and the model's limits."""

    _tokenizer: ReadsTokens
    _max_model_len: int
    _vocab_size: int

    def text_of(self, tokens: Sequence[int]) -> str:
        """The text of token ids."""
        return self._tokenizer.text_of(tokens)

    def check_ids(self, tokens: Sequence[int], param: str) -> None:
        """Raise :class:`ApiError` (400) for token ids that the model does not have."""
        check_tokens(tokens, self._vocab_size, param)

    def check_length(self, tokens: int, param: str) -> None:
        """Raise :class:`ApiError` (400) for what leaves no room in the context."""
        check_prompt(range(tokens), self._max_model_len, param)


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


def check_tokens(tokens: Iterable[int], vocab_size: int, param: str) -> None:
    """Raise :class:`ApiError` (400), naming ``param``, for a token id that the model does not have."""
    for token in tokens:
        if token >= vocab_size:
            raise ApiError(f"Token id {token} is not in the model's vocabulary of {vocab_size}.", param=param)


async def tokenized(
    prompts: Sequence[Prompt],
    encode: Callable[[str], list[int]],
    max_model_len: int,
    vocab_size: int,
    param: str,
    cut: Cut = as_it_is,
) -> list[list[int]]:
    """Texts and token ids as token ids, each as ``cut`` makes it.

    Raises :class:`ApiError`, naming ``param``, for what the model cannot read.
    """

    def tokenize() -> list[list[int]]:
        return [cut(encode(prompt) if isinstance(prompt, str) else prompt) for prompt in prompts]

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
