"""Plans for the simulated engine: tokens in, length, text and where a stop string ends it.

The simulated answer is known before the first step runs, so everything about it but its timing is settled here. It is
a function of model, prompt and ``seed`` alone; ``max_tokens``, ``stop`` and ``n`` only cut it or add to it.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from simserve.engines.base import GenerationRequest
from simserve.errors import RequestError
from simserve.server.answers.likelihoods import Likelihoods, NamedByIds
from simserve.server.answers.said_schemas import said_schema
from simserve.server.answers.script import Script
from simserve.server.answers.stops import End, find_end
from simserve.server.answers.wording import NO_RULES, TextSource, Wording, WordRules
from simserve.server.answers.writer import PLAIN, AnswerWriter, Habits, Order
from simserve.server.errors import ApiError
from simserve.server.fields import Prompt
from simserve.server.formats import ANY_OBJECT, OfSchema, Wanted
from simserve.server.logprobs import (
    ChatLogprobs,
    CompletionLogprobs,
    LogprobsWriter,
    name_by_id,
    prompt_logprobs,
)
from simserve.server.media import MediaPart, MediaRules, media_rules
from simserve.server.messages import MARK, last_words
from simserve.server.plans import (
    INLINE_PROMPT_CHARACTERS,
    Counting,
    Cut,
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
from simserve.server.simulated_choice import SimulatedChoice, Spoken
from simserve.server.tools import NamedTool
from simserve.server.unsupported import SIMULATED
from simserve.workload import render_chat

# Above this an answer is written in a thread, so that a long one does not hold up all other streams.
INLINE_ANSWER_TOKENS = 2_000


class Tokenizer(ReadsTokens, Protocol):
    """What the planner needs of a tokenizer."""

    @property
    def vocab_size(self) -> int: ...

    def encode(self, text: str) -> list[int]:
        """The token ids of ``text``."""
        ...

    def split(self, text: str) -> tuple[list[int], list[str]]:
        """The token ids of ``text`` and the stretch of it that each stands for."""
        ...

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token stands for."""
        ...


@dataclass(frozen=True)
class Task:
    """One prompt of a request, and what is to be written to it; ``keys`` has one for each answer."""

    tokens: list[int]
    keys: Sequence[str]
    asked: str = ""
    echoed: Spoken | None = None


@dataclass(frozen=True)
class Form:
    """What all answers of a request have in common beside the fields of its body."""

    rules: WordRules = NO_RULES
    wanted: Wanted | None = None
    chat: ChatRequest | None = None
    effort: str | None = None
    functions: Sequence[Any] = ()
    audio_tokens: int = 0


class SimulatedPlanner(Counting):
    """See :class:`simserve.server.plans.Planner`; token ids of prompts must lie below ``vocab_size``.

    ``habits`` say how answers are, ``media`` counts pictures and sounds, ``reasons`` says whether the model reasons
    before it answers where nobody says that it should.
    """

    unsupported = SIMULATED
    _tokenizer: Tokenizer

    def __init__(
        self,
        model: str,
        tokenizer: Tokenizer,
        text: TextSource,
        max_model_len: int,
        vocab_size: int,
        habits: Habits = PLAIN,
        media: MediaRules | None = None,
        *,
        reasons: bool = False,
    ) -> None:
        self._model = model
        self._vocab_size = vocab_size
        self._tokenizer = tokenizer
        self._name = tokenizer.token_bytes
        self._max_model_len = max_model_len
        self._writer = AnswerWriter(tokenizer, Wording(text, tokenizer), habits)
        self._media = media or media_rules(None, vocab_size)
        self._reasons = reasons
        self._numbers = itertools.count()

    def renamed(self, model: str) -> SimulatedPlanner:
        """The same for another name, with other words: an adapter of the model. Sequences have ids of their own."""
        other = copy.copy(self)
        other._model = model
        return other

    async def chat(self, request: ChatRequest, request_id: str) -> Plan:
        await _read_form(request)
        tokens, audio_tokens = await self.chat_prompt(request)
        check_prompt(tokens, self._max_model_len, "messages")
        form = Form(
            rules=self._rules(request),
            wanted=await self._wanted(request),
            chat=request,
            effort=request.effort(by_default=self._reasons),
            functions=self._functions_to_call(request),
            audio_tokens=audio_tokens,
        )
        echoed = Spoken((), (request.repeated(),)) if request.echo else None
        task = Task(tokens, self._keys(request, tokens), last_words(request.messages), echoed)
        return await self._plan(request, [task], form, request_id, ChatLogprobs)

    async def chat_prompt(self, request: ChatRequest) -> tuple[list[int], int]:
        media = [part for message in request.messages for part in message.media()]
        going_on = request.continue_final_message

        def encode() -> tuple[list[int], int]:
            messages = request.conversation()
            text = render_chat(messages, answer=request.add_generation_prompt, continue_last=going_on)
            return self._with_media(text, media) if media else (self._tokenizer.encode(text), 0)

        tokens, audio_tokens = await run(encode, in_thread=request.size() > INLINE_PROMPT_CHARACTERS or bool(media))
        return request.truncated(tokens, self._max_model_len), audio_tokens

    async def tokens_of(self, text: str, *, special: bool) -> list[int]:
        """No prompt of the simulated engine has special tokens around it."""
        return await run(lambda: self._tokenizer.encode(text), in_thread=len(text) > INLINE_PROMPT_CHARACTERS)

    async def completion(self, request: CompletionRequest, request_id: str) -> Plan:
        await _read_form(request)
        suffix = self._tokenizer.encode(request.suffix) if request.suffix else []

        def cut(tokens: list[int]) -> list[int]:
            return request.truncated([*tokens, *suffix], self._max_model_len)

        prompts = await self.token_ids(request.prompt, "prompt", cut)
        tasks = [
            Task(
                tokens,
                self._keys(request, tokens),
                prompt if isinstance(prompt, str) else self._tokenizer.text_of(prompt),
                self._spoken(prompt, tokens) if request.echo else None,
            )
            for prompt, tokens in zip(request.prompt, prompts, strict=True)
        ]
        form = Form(rules=self._rules(request), wanted=request.wanted())
        return await self._plan(request, tasks, form, request_id, CompletionLogprobs)

    async def token_ids(self, prompts: Sequence[Prompt], param: str, cut: Cut = as_it_is) -> list[list[int]]:
        return await tokenized(prompts, self._tokenizer.encode, self._max_model_len, self._vocab_size, param, cut)

    def _with_media(self, text: str, media: Sequence[MediaPart]) -> tuple[list[int], int]:
        """The tokens of ``text`` with those of ``media`` in place of their marks, and how many are of sounds."""
        stretches = text.split(MARK)
        tokens, audio_tokens = self._tokenizer.encode(stretches[0]), 0
        for part, stretch in zip(media, stretches[1:], strict=True):
            counted = self._media.count(part)
            tokens += counted.token_ids
            audio_tokens += len(counted.token_ids) if counted.is_audio else 0
            tokens += self._tokenizer.encode(stretch)
        return tokens, audio_tokens

    def _spoken(self, prompt: Prompt, tokens: list[int]) -> Spoken:
        """The prompt as it was written, or, where it was given in tokens or cut, as its tokens read."""
        if isinstance(prompt, str):
            split, pieces = self._tokenizer.split(prompt)
            if split == tokens:
                return Spoken(tokens, pieces)
        return Spoken(tokens, [self._tokenizer.text_of([token]) for token in tokens])

    def _rules(self, request: CompletionFields) -> WordRules:
        given = (("logit_bias", request.logit_bias), ("allowed_token_ids", request.allowed_token_ids))
        for param, tokens in (*given, ("stop_token_ids", request.stop_token_ids)):
            check_tokens(tokens, self._vocab_size, param)
        try:
            rules = WordRules.of(request.logit_bias, request.allowed_token_ids, request.bad_words)
        except RequestError as error:
            raise ApiError(str(error), param="logit_bias") from None
        named = next((name for name, value in (*given, ("bad_words", request.bad_words)) if value), None)
        if rules and (request.wanted() is not None or (isinstance(request, ChatRequest) and request.must_call())):
            raise ApiError(f"`{named}` cannot be honoured where the form of the answer is given.", param=named)
        return rules

    async def _wanted(self, request: ChatRequest) -> Wanted | None:
        """What form the answer has to have; of an object that no field describes, what the messages say of it."""
        wanted = request.wanted()
        if not (isinstance(wanted, OfSchema) and wanted.schema is ANY_OBJECT):
            return wanted
        texts = [message.text() for message in request.messages if message.role != "assistant"]
        said = await run(lambda: said_schema(texts), in_thread=True)
        return wanted if said is None else OfSchema(said, "messages")

    def _functions_to_call(self, request: ChatRequest) -> Sequence[Any]:
        """The functions that the answer calls; none after a tool's result, which the model is to talk about."""
        functions = [tool.function for tool in request.callable_tools()]
        is_result = request.messages[-1].role in ("tool", "function")
        return functions if request.must_call() or not (is_result or request.wanted()) else ()

    def _keys(self, request: CompletionFields, tokens: list[int]) -> list[str]:
        """What the text of each of a prompt's choices depends on; at temperature 0 they are all alike."""
        greedy = request.temperature == 0
        base = hashlib.blake2b(array("q", tokens).tobytes(), digest_size=16, person=b"simserve-text").hexdigest()
        seed = "greedy" if greedy else request.seed
        count = request.sequences_per_prompt()
        return [f"{self._model}|{base}|{seed}|{0 if greedy else which}" for which in range(count)]

    async def _plan(
        self,
        request: CompletionFields,
        tasks: Sequence[Task],
        form: Form,
        request_id: str,
        new_logprobs: type[ChatLogprobs] | type[CompletionLogprobs],
    ) -> Plan:
        check_limit(request.token_limit(), self._max_model_len)
        count = request.sequences_per_prompt()
        orders = [self._order(request, task, form, task.keys[0], request_id) for task in tasks]

        def build() -> list[SimulatedChoice]:
            each = [
                (task, first if key == task.keys[0] else self._order(request, task, form, key, request_id))
                for task, first in zip(tasks, orders, strict=True)
                for key in task.keys
            ]
            return [
                self._choice(request, task, form, order, index, request_id, new_logprobs())
                for index, (task, order) in enumerate(each)
            ]

        expected = sum(map(self._writer.expected, orders)) * count
        is_formed = bool(form.functions) or form.wanted is not None
        try:
            choices = await run(build, in_thread=is_formed or expected > INLINE_ANSWER_TOKENS)
        except RequestError as error:
            raise ApiError(str(error), param="logit_bias") from None
        tells = None
        if request.tells_of_tokens:
            is_long = request.prompt_logprobs is not None
            tells = await run(lambda: self._tells(request, tasks), in_thread=is_long)
        return Plan(
            prompts=len(tasks),
            prompt_tokens=sum(len(task.tokens) for task in tasks),
            choices=choices,
            is_settled=True,
            audio_tokens=form.audio_tokens,
            returned=request.n if count > request.n else None,
            tells=tells,
        )

    def _tells(self, request: CompletionFields, tasks: Sequence[Task]) -> Tells:
        if request.prompt_logprobs is None:
            return Tells(request.return_token_ids)
        return Tells(request.return_token_ids, [self._prompt_logprobs(task, request.prompt_logprobs) for task in tasks])

    def _prompt_logprobs(self, task: Task, top: int) -> list[orjson.Fragment]:
        """As JSON, a token at a time: between them, other threads have their turn."""
        pieces = [self._tokenizer.token_bytes(token).decode(errors="replace") for token in task.tokens]
        likelihoods = Likelihoods(task.keys[0], top, self._tokenizer.token_bytes, self._tokenizer.vocab_size)
        told = prompt_logprobs(task.tokens, likelihoods.of_prompt(task.tokens, pieces))
        return [orjson.Fragment(orjson.dumps(one)) for one in told]

    def _order(self, request: CompletionFields, task: Task, form: Form, key: str, request_id: str) -> Order:
        room = self._max_model_len - len(task.tokens)
        limit = request.token_limit()
        most = max(1, min(room if limit is None else limit, room))
        chat = form.chat
        return Order(
            key=key,
            asked=task.asked,
            most=most,
            has_limit=limit is not None,
            least=min(request.min_tokens, most),
            ignore_eos=request.ignore_eos,
            wanted=form.wanted,
            functions=form.functions,
            parallel=chat is None or (chat.parallel_tool_calls and not isinstance(chat.tool_choice, NamedTool)),
            call_id=f"call_{hashlib.blake2b(f'{request_id}|{key}'.encode(), digest_size=10).hexdigest()}",
            effort=form.effort,
            is_told=chat is None or chat.include_reasoning,
            thinking_budget=None if chat is None else chat.thinking_token_budget,
            rules=form.rules,
        )

    def _choice(
        self,
        request: CompletionFields,
        task: Task,
        form: Form,
        order: Order,
        index: int,
        request_id: str,
        logprobs: LogprobsWriter,
    ) -> SimulatedChoice:
        script = self._writer.write(order)
        whole, count = script.is_whole, len(script)
        end = find_end(script, request, first_token=order.least)
        if end is not None:
            end.apply_to(script)
        top = request.likeliest_tokens()
        likelihoods = None
        is_ranked = request.sequences_per_prompt() > request.n
        if top is not None or is_ranked:
            kind, name = (NamedByIds, name_by_id) if request.return_tokens_as_token_ids else (Likelihoods, self._name)
            likelihoods = kind(order.key, top or 0, name, self._tokenizer.vocab_size)
        sequence = GenerationRequest(
            # Numbered, since clients may give the same id to requests that run at the same time.
            request_id=f"{request_id}-{next(self._numbers)}",
            prompt_token_ids=task.tokens,
            max_tokens=count,
            output_tokens=None if end is None else len(script),
            priority=request.priority,
            cache_salt=request.cache_salt or "",
            session=request.user,
        )
        return SimulatedChoice(
            index=index,
            sequence=sequence,
            script=script,
            finish_reason=_finish_reason(form, script, end, is_whole=whole),
            stop_reason=None if end is None else end.reason,
            before=task.echoed,
            likelihoods=likelihoods if top is not None else None,
            logprobs=logprobs if top is not None else None,
            is_silent=request.token_limit() == 0,
            tells_ids=request.return_token_ids,
            score=likelihoods.mean(len(script)) if likelihoods is not None and is_ranked else 0.0,
        )


async def _read_form(request: CompletionFields) -> None:
    """Check the form that the answer is to have in a thread: from then on it is known, and reading it costs little."""
    if request.response_format is not None or request.structured_outputs is not None:
        await run(request.wanted, in_thread=True)


def _finish_reason(form: Form, script: Script, end: End | None, *, is_whole: bool) -> str:
    """OpenAI's word for how the answer ends; a call that had to be made by its name is a "stop"."""
    if end is None and not is_whole:
        return "length"
    named = form.chat is not None and isinstance(form.chat.tool_choice, NamedTool)
    return "tool_calls" if script.calls and not named else "stop"
