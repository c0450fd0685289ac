"""Plans for the simulated engine: tokens in, length, text and where a stop string ends it.

The simulated text is known before the first step runs, so everything about an answer but its timing is settled here.
It is a function of model, prompt and ``seed`` alone; ``max_tokens``, ``stop`` and ``n`` only cut it or add to it.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import math
import random
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from simserve.engines.base import GenerationRequest, TokenEvent
from simserve.server.fields import Prompt
from simserve.server.plans import (
    INLINE_PROMPT_CHARACTERS,
    Piece,
    Plan,
    check_limit,
    check_prompt,
    run,
    tokenized,
)
from simserve.server.protocol import ChatRequest, CompletionFields, CompletionRequest
from simserve.server.unsupported import SIMULATED
from simserve.workload import render_chat

# Answer lengths when the client leaves them open: lognormal, mean 128 tokens, median 93, 95th percentile 347.
MEAN_ANSWER_TOKENS = 128
ANSWER_SIGMA = 0.8

# Above this an answer is written in a thread, so that a long one does not hold up all other streams.
INLINE_ANSWER_TOKENS = 2_000


class Tokenizer(Protocol):
    """What the server needs of a tokenizer."""

    def encode(self, text: str) -> list[int]:
        """The token ids of ``text``."""
        ...


class Answer(Protocol):
    """Text of a known number of tokens; ``pieces`` has one string per token and begins alike for every length."""

    @property
    def pieces(self) -> Sequence[str]:
        """One string per token."""
        ...


class TextSource(Protocol):
    """Where simulated text comes from; the same key gives the same text."""

    def answer(self, seed_key: str, count: int) -> Answer:
        """``count`` tokens of text."""
        ...


@dataclass(frozen=True)
class SimulatedChoice:
    """One sequence to generate and the answer it will have; one piece of text per token.

    ``finish_reason`` is "stop" where the answer ends by itself or at a stop string, "length" where a limit cuts it.
    """

    index: int
    sequence: GenerationRequest
    pieces: Sequence[str]
    finish_reason: str

    def read(self, event: TokenEvent) -> Piece:
        """The text of the event's tokens; the reason is the planned one, unless the engine stopped short of it."""
        text = "".join(self.pieces[event.index : event.index + event.tokens])
        return Piece(text, event.finish_reason if event.finish_reason in (None, "abort") else self.finish_reason)


class SimulatedPlanner:
    """See :class:`simserve.server.plans.Planner`; token ids of prompts must lie below ``vocab_size``."""

    unsupported = SIMULATED

    def __init__(self, model: str, tokenizer: Tokenizer, text: TextSource, max_model_len: int, vocab_size: int) -> None:
        self._model = model
        self._vocab_size = vocab_size
        self._tokenizer = tokenizer
        self._text = text
        self._max_model_len = max_model_len
        self._numbers = itertools.count()

    def renamed(self, model: str) -> SimulatedPlanner:
        """The same for another name, with other words: an adapter of the model. Sequences have ids of their own."""
        other = copy.copy(self)
        other._model = model
        return other

    async def chat(self, request: ChatRequest, request_id: str) -> Plan:
        messages = request.conversation()
        size = sum(len(message["content"]) for message in messages)

        def encode() -> list[int]:
            return self._tokenizer.encode(render_chat(messages))

        tokens = await run(encode, in_thread=size > INLINE_PROMPT_CHARACTERS)
        check_prompt(tokens, self._max_model_len, "messages")
        return await self._plan(request, [tokens], request_id)

    async def completion(self, request: CompletionRequest, request_id: str) -> Plan:
        return await self._plan(request, await self.token_ids(request.prompt, "prompt"), request_id)

    async def token_ids(self, prompts: Sequence[Prompt], param: str) -> list[list[int]]:
        return await tokenized(prompts, self._tokenizer.encode, self._max_model_len, self._vocab_size, param)

    async def _plan(self, request: CompletionFields, prompts: list[list[int]], request_id: str) -> Plan:
        check_limit(request.token_limit(), self._max_model_len)
        keys = [self._keys(request, tokens) for tokens in prompts]
        wanted = sum(self._length(request, len(tokens), key[0])[0] for tokens, key in zip(prompts, keys, strict=True))

        def build() -> list[SimulatedChoice]:
            return [
                self._choice(request, tokens, key, prompt * request.n + which, request_id)
                for prompt, tokens in enumerate(prompts)
                for which, key in enumerate(keys[prompt])
            ]

        choices = await run(build, in_thread=wanted * request.n > INLINE_ANSWER_TOKENS)
        return Plan(prompts=len(prompts), prompt_tokens=sum(map(len, prompts)), choices=choices, is_settled=True)

    def _keys(self, request: CompletionFields, tokens: list[int]) -> list[str]:
        """What the text of each of a prompt's choices depends on; at temperature 0 they are all alike."""
        greedy = request.temperature == 0
        base = hashlib.blake2b(array("q", tokens).tobytes(), digest_size=16, person=b"simserve-text").hexdigest()
        seed = "greedy" if greedy else request.seed
        return [f"{self._model}|{base}|{seed}|{0 if greedy else which}" for which in range(request.n)]

    def _length(self, request: CompletionFields, prompt_tokens: int, key: str) -> tuple[int, str]:
        """How many tokens the answer has before stop strings are looked for, and why it ends there.

        With a limit exactly that many, which makes benchmarks predictable; else a length drawn from the key, or all
        of the context with ``ignore_eos``. What the context leaves is the most there can be.
        """
        room = self._max_model_len - prompt_tokens
        limit = request.token_limit()
        if limit is not None or request.ignore_eos:
            return min(limit or room, room), "length"
        drawn = max(_drawn_length(key), request.min_tokens)
        return (drawn, "stop") if drawn <= room else (room, "length")

    def _choice(
        self,
        request: CompletionFields,
        tokens: list[int],
        key: str,
        index: int,
        request_id: str,
    ) -> SimulatedChoice:
        count, reason = self._length(request, len(tokens), key)
        pieces = self._text.answer(key, count).pieces
        stopped = _cut_at_stop(pieces, request.stop, request.min_tokens, keep_stop=request.include_stop_str_in_output)
        sequence = GenerationRequest(
            # Numbered, since clients may give the same id to requests that run at the same time.
            request_id=f"{request_id}-{next(self._numbers)}",
            prompt_token_ids=tokens,
            max_tokens=count,
            priority=request.priority,
        )
        if stopped is None:
            return SimulatedChoice(index, sequence, pieces, reason)
        return SimulatedChoice(index, replace(sequence, output_tokens=len(stopped)), stopped, "stop")


def _drawn_length(key: str) -> int:
    """A length that is the same whenever the same request is asked."""
    mu = math.log(MEAN_ANSWER_TOKENS) - ANSWER_SIGMA**2 / 2
    return max(1, round(random.Random(key).lognormvariate(mu, ANSWER_SIGMA)))


def _cut_at_stop(pieces: Sequence[str], stops: Sequence[str], min_tokens: int, *, keep_stop: bool) -> list[str] | None:
    """The pieces up to the token that completes the first stop string, text cut before it; None if there is none.

    As in vLLM, a stop string counts only if it ends after the first ``min_tokens`` tokens, and ``keep_stop`` leaves
    it in the text.
    """
    if not stops:
        return None
    text = "".join(pieces)
    earliest = len("".join(pieces[:min_tokens])) + 1
    found = [(at + len(stop), at) for stop in stops if (at := _find(text, stop, earliest)) >= 0]
    if not found:
        return None
    end, start = min(found)
    return _pieces_up_to(pieces, end, end if keep_stop else start)


def _find(text: str, stop: str, earliest_end: int) -> int:
    return text.find(stop, max(0, earliest_end - len(stop)))


def _pieces_up_to(pieces: Sequence[str], end: int, cut: int) -> list[str]:
    """As many pieces as reach character ``end``, with all text from character ``cut`` on taken away."""
    kept: list[str] = []
    at = 0
    for piece in pieces:
        if at >= end:
            break
        kept.append(piece[: max(0, cut - at)])
        at += len(piece)
    return kept
