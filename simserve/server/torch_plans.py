"""Plans for the torch engine: the model's own chat template and tokenizer, and sampling parameters for the engine."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from simserve.engines.base import GenerationRequest, SamplingParams, TokenEvent
from simserve.errors import RequestError
from simserve.server.errors import ApiError
from simserve.server.fields import Prompt
from simserve.server.logprobs import ChatLogprobs, CompletionLogprobs, LogprobsWriter, TokenBytes, name_by_id, told
from simserve.server.plans import (
    INLINE_PROMPT_CHARACTERS,
    Counting,
    Cut,
    Piece,
    Plan,
    ReadsTokens,
    Tells,
    as_it_is,
    check_limit,
    check_prompt,
    check_tokens,
    run,
    tokenized,
)
from simserve.server.protocol import ChatRequest, CompletionFields, CompletionRequest
from simserve.server.unsupported import TORCH


class Tokenizer(ReadsTokens, Protocol):
    """What the planner needs of the model's tokenizer."""

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        """The token ids of ``text``, with those that the model expects at its beginning if asked for."""
        ...

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of ``token_ids``."""
        ...

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token stands for."""
        ...


class Template(Protocol):
    """What the planner needs of the model's chat template."""

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        extras: Mapping[str, Any],
    ) -> str:
        """The prompt for ``messages``; raises :class:`RequestError` if it refuses them."""
        ...


@dataclass
class TorchChoice:
    """One sequence to generate; ``before``, the prompt where it is to be echoed, goes with its first piece."""

    index: int
    sequence: GenerationRequest
    logprobs: LogprobsWriter
    token_bytes: TokenBytes
    before: str = ""
    tells_ids: bool = False
    reasoning_tokens = 0
    is_silent = False
    score = 0.0
    pieces: None = None

    def read(self, event: TokenEvent) -> Piece:
        """The event's own text and logprobs."""
        text, self.before = self.before + event.text, ""
        wanted = self.sequence.sampling.logprobs is not None and event.logprobs
        logprobs = self.logprobs.object([told(one, self.token_bytes) for one in event.logprobs]) if wanted else None
        token_ids = event.token_ids if self.tells_ids else None
        return Piece(text, event.finish_reason, logprobs, event.stop_reason, token_ids=token_ids)


class TorchPlanner(Counting):
    """See :class:`simserve.server.plans.Planner`.

    ``defaults`` are the sampling parameters for what clients leave open: those that the model's authors recommend.
    """

    unsupported = TORCH
    _tokenizer: Tokenizer

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: Template | None,
        max_model_len: int,
        vocab_size: int,
        defaults: Mapping[str, float],
    ) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._max_model_len = max_model_len
        self._vocab_size = vocab_size
        self._defaults = defaults
        self._numbers = itertools.count()

    async def chat(self, request: ChatRequest, request_id: str) -> Plan:
        tokens, _ = await self.chat_prompt(request)
        check_prompt(tokens, self._max_model_len, "messages")
        return self._plan(request, [tokens], request_id, ChatLogprobs, [request.repeated()])

    async def chat_prompt(self, request: ChatRequest) -> tuple[list[int], int]:
        if self._template is None:
            raise ApiError("This model has no chat template; use /v1/completions.", param="messages")
        messages = [message.for_template() for message in request.messages]
        end = {} if request.add_generation_prompt else {"add_generation_prompt": False}
        extras = {**end, **request.chat_template_kwargs}
        try:
            text = self._template.render(messages, request.usable_tools(), extras)
        except RequestError as error:
            raise ApiError(str(error), param="messages") from None
        if request.continue_final_message:
            text = _up_to(text, request.messages[-1].text())
        # The template has written the special tokens.
        tokens = await self.tokens_of(text, special=request.add_special_tokens)
        return request.truncated(tokens, self._max_model_len), 0

    async def tokens_of(self, text: str, *, special: bool) -> list[int]:
        def encode() -> list[int]:
            return self._tokenizer.encode(text, add_special_tokens=special)

        return await run(encode, in_thread=len(text) > INLINE_PROMPT_CHARACTERS)

    async def completion(self, request: CompletionRequest, request_id: str) -> Plan:
        def cut(tokens: list[int]) -> list[int]:
            return request.truncated(tokens, self._max_model_len)

        prompts = await self.token_ids(request.prompt, "prompt", cut)
        echoed = [self._text_of(prompt) for prompt in request.prompt] if request.echo else []
        return self._plan(request, prompts, request_id, CompletionLogprobs, echoed)

    async def token_ids(self, prompts: Sequence[Prompt], param: str, cut: Cut = as_it_is) -> list[list[int]]:
        def encode(text: str) -> list[int]:
            return self._tokenizer.encode(text, add_special_tokens=True)

        return await tokenized(prompts, encode, self._max_model_len, self._vocab_size, param, cut)

    def _text_of(self, prompt: Prompt) -> str:
        return prompt if isinstance(prompt, str) else self._tokenizer.decode(prompt)

    def _plan(
        self,
        request: CompletionFields,
        prompts: list[list[int]],
        request_id: str,
        new_logprobs: Callable[[], LogprobsWriter],
        echoed: Sequence[str] = (),
    ) -> Plan:
        check_tokens(request.logit_bias, self._vocab_size, "logit_bias")
        check_tokens(request.stop_token_ids, self._vocab_size, "stop_token_ids")
        check_limit(request.token_limit(), self._max_model_len)
        choices = [
            TorchChoice(
                index=at * request.n + which,
                sequence=self._sequence(request, tokens, which, request_id),
                logprobs=new_logprobs(),
                token_bytes=name_by_id if request.return_tokens_as_token_ids else self._tokenizer.token_bytes,
                tells_ids=request.return_token_ids,
                before=echoed[at] if echoed else "",
            )
            for at, tokens in enumerate(prompts)
            for which in range(request.n)
        ]
        return Plan(
            prompts=len(prompts),
            prompt_tokens=sum(map(len, prompts)),
            choices=choices,
            is_settled=False,
            tells=Tells(token_ids=True) if request.return_token_ids else None,
        )

    def _sequence(self, request: CompletionFields, tokens: list[int], which: int, request_id: str) -> GenerationRequest:
        room = self._max_model_len - len(tokens)
        most = min(request.token_limit() or room, room)
        return GenerationRequest(
            # Numbered, since clients may give the same id to requests that run at the same time.
            request_id=f"{request_id}-{next(self._numbers)}",
            prompt_token_ids=tokens,
            max_tokens=most,
            priority=request.priority,
            sampling=self._sampling(request, which, most),
        )

    def _sampling(self, request: CompletionFields, which: int, most: int) -> SamplingParams:
        """What the engine is to do for choice ``which`` of a prompt; each has a seed of its own, made from the one."""

        def asked(name: str) -> Any:
            given = name in request.model_fields_set or name not in self._defaults
            return getattr(request, name) if given else self._defaults[name]

        return SamplingParams(
            temperature=asked("temperature"),
            top_p=asked("top_p"),
            top_k=max(0, int(asked("top_k"))),
            min_p=asked("min_p"),
            repetition_penalty=asked("repetition_penalty"),
            presence_penalty=request.presence_penalty,
            frequency_penalty=request.frequency_penalty,
            seed=None if request.seed is None else request.seed + which,
            stop=tuple(request.stop),
            include_stop=request.include_stop_str_in_output,
            stop_token_ids=tuple(request.stop_token_ids),
            ignore_eos=request.ignore_eos,
            min_tokens=min(request.min_tokens, most),
            logprobs=request.likeliest_tokens(),
            logit_bias=request.logit_bias,
            skip_special_tokens=request.skip_special_tokens,
        )


def _up_to(prompt: str, last: str) -> str:
    """``prompt`` without what its template wrote behind the last message, for an answer that goes on with it."""
    end = prompt.rfind(last.strip())
    if end < 0:
        message = "The model's chat template leaves the last message out, so that it cannot be gone on with."
        raise ApiError(message, param="continue_final_message")
    return prompt[: end + len(last.strip())]
