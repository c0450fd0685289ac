"""What clients send to the completion endpoints: the request bodies, validated.

Ranges are those of OpenAI and vLLM. The simulated engine checks the sampling fields (``temperature``, ``top_p``,
``top_k``, ``min_p`` and the penalties) for range and makes nothing else of them: simulated text is not sampled.
Temperature 0 makes its text independent of ``seed``. ``docs/api.md`` says of every field what each engine does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from simserve.server.errors import ApiError
from simserve.server.fields import (
    AllowedTokens,
    Fields,
    Flag,
    LogitBias,
    Logprobs,
    Number,
    Penalty,
    PromptLogprobs,
    Prompts,
    Stops,
    TokenIds,
    Truncation,
    Whole,
    contradiction,
    first_problem,
    truncated,
)
from simserve.server.formats import ResponseFormat, StructuredOutputs, Wanted
from simserve.server.messages import Messages, len_of
from simserve.server.request_ids import USABLE
from simserve.server.tools import Tool, ToolChoice, check_tools, must_call, usable

MAX_CHOICES = 128
MAX_SEQUENCES = 16_384
"""Of one request: all choices of all its prompts."""

MAX_TOOLS = 128
CHARACTERS_PER_TOOL = 1_000
"""To know whether a prompt is a long one."""
GUIDES = {f"guided_{name}": name for name in ("json", "regex", "choice", "grammar")}
"""vLLM's fields from before there was ``structured_outputs``, and what they are called in it."""
ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]

Body = TypeVar("Body", bound=BaseModel)


def parse(
    body: bytes | dict[str, Any],
    kind: type[Body],
    refuse: Callable[[dict[str, Any]], None] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Body:
    """Read ``body`` as JSON of this kind, unless it has been read.

    Raises :class:`ApiError` (400) naming the first thing that is wrong.

    ``refuse`` is asked first: it raises for fields that the engine behind the server cannot honour. ``defaults`` are
    this server's, for fields that the client leaves open.
    """
    try:
        fields = body if isinstance(body, dict) else orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ApiError(f"The request body is not valid JSON: {error}.") from None
    if not isinstance(fields, dict):
        raise ApiError("The request body must be a JSON object.")
    if refuse is not None:
        refuse(fields)
    fields |= {name: value for name, value in (defaults or {}).items() if fields.get(name) is None}
    if not fields.keys().isdisjoint(GUIDES):
        fields = _with_newer_names(fields)
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise first_problem(error) from None


def _with_newer_names(fields: dict[str, Any]) -> dict[str, Any]:
    older = {GUIDES[name]: value for name, value in fields.items() if name in GUIDES and value is not None}
    if older and fields.get("structured_outputs") is not None:
        raise ApiError("Give either `structured_outputs` or `guided_...`.", param="structured_outputs")
    return {**fields, "structured_outputs": older} if older else fields


def _usable_id(name: str) -> str:
    if not USABLE.fullmatch(name):
        raise PydanticCustomError("request_id", "give up to 128 letters, digits and _ . : -")
    return name


class StreamOptions(Fields):
    """``continuous_usage_stats`` (vLLM's) puts the usage so far on every chunk; it needs ``include_usage``.

    ``include_metrics`` is SimServe's own: the last chunk says what the engine's times of each choice were.
    """

    include_usage: Flag = False
    continuous_usage_stats: Flag = False
    include_metrics: Flag = False


class SamplingFields(Fields):
    """How tokens are chosen and where an answer ends; names and ranges are OpenAI's and vLLM's."""

    temperature: Annotated[Number, Field(ge=0.0, le=2.0)] = 1.0
    top_p: Annotated[Number, Field(gt=0.0, le=1.0)] = 1.0
    top_k: Annotated[Whole, Field(ge=-1)] = -1
    min_p: Annotated[Number, Field(ge=0.0, le=1.0)] = 0.0
    frequency_penalty: Penalty = 0.0
    presence_penalty: Penalty = 0.0
    repetition_penalty: Annotated[Number, Field(gt=0.0)] = 1.0
    seed: Annotated[Whole, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Stops = ()
    include_stop_str_in_output: Flag = False
    stop_token_ids: TokenIds = ()
    ignore_eos: Flag = False
    logit_bias: LogitBias = Field(default_factory=dict)
    skip_special_tokens: Flag = True
    allowed_token_ids: AllowedTokens = ()
    bad_words: Stops = ()
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None

    def wanted(self) -> Wanted | None:
        """What form the answer has to have; None for any. Raises :class:`ApiError` (400) for a broken schema."""
        formats = [one.wanted() for one in (self.response_format, self.structured_outputs) if one is not None]
        given = [one for one in formats if one is not None]
        if len(given) > 1:
            raise ApiError("Give either `response_format` or `structured_outputs`.", param="structured_outputs")
        return given[0] if given else None


class CompletionFields(SamplingFields):
    """What both completion endpoints take."""

    model: str | None = None
    max_tokens: Annotated[Whole, Field(ge=1)] | None = None
    min_tokens: Annotated[Whole, Field(ge=0)] = 0
    n: Annotated[Whole, Field(ge=1, le=MAX_CHOICES)] = 1
    stream: Flag = False
    stream_options: StreamOptions | None = None
    priority: Annotated[Whole, Field(ge=-(2**31), lt=2**31)] = 0
    cache_salt: Annotated[str, Field(min_length=1)] | None = None
    truncate_prompt_tokens: Truncation = None
    truncation_side: Literal["left", "right"] = "left"
    prompt_logprobs: PromptLogprobs | None = None
    return_token_ids: Flag = False
    return_tokens_as_token_ids: Flag = False
    request_id: Annotated[str, AfterValidator(_usable_id)] | None = None
    echo: Flag = False
    user: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fields_agree(self) -> CompletionFields:
        if self.stream_options is not None and not self.stream:
            raise contradiction("stream_options", "`stream_options` is only allowed when `stream` is true")
        if self.stream and self.prompt_logprobs is not None:
            raise contradiction("prompt_logprobs", "`prompt_logprobs` cannot be streamed; leave `stream` out")
        limit = self.token_limit()
        if limit is not None and self.min_tokens > limit:
            raise contradiction("min_tokens", "`min_tokens` must not exceed the most tokens allowed")
        return self

    def token_limit(self) -> int | None:
        """The most tokens the client wants, or None where it left that open; 0 only for a prompt to be echoed."""
        return self.max_tokens

    def sequences_per_prompt(self) -> int:
        """How many answers are generated to each prompt; ``n`` of them are told."""
        return self.n

    @property
    def tells_of_tokens(self) -> bool:
        """Whether more is to be told of tokens than their text and their logprobs."""
        return self.return_token_ids or self.prompt_logprobs is not None

    def truncated(self, tokens: list[int], max_model_len: int) -> list[int]:
        """A prompt of ``truncate_prompt_tokens`` tokens at most, its last ones unless ``truncation_side`` is right.

        -1 are as many as leave room for the answer, or for one token of it if it has no limit.
        """
        room = max_model_len - max(1, self.token_limit() or 0)
        return truncated(tokens, self.truncate_prompt_tokens, room, self.truncation_side)

    def likeliest_tokens(self) -> int | None:
        """How many of the likeliest tokens to tell with each token's logprob; None if no logprobs are wanted."""
        return None

    def usage_in_stream(self) -> bool:
        """Whether a stream ends with a chunk of usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    def metrics_in_stream(self) -> bool:
        """Whether a stream ends with the engine's times."""
        return self.stream_options is not None and self.stream_options.include_metrics

    def usage_in_every_chunk(self) -> bool:
        """Whether every chunk carries the usage so far."""
        return self.usage_in_stream() and self.stream_options.continuous_usage_stats  # type: ignore[union-attr]


class ChatRequest(CompletionFields):
    """Body of ``POST /v1/chat/completions``; ``max_completion_tokens`` wins over ``max_tokens``."""

    messages: Messages
    max_completion_tokens: Annotated[Whole, Field(ge=1)] | None = None
    logprobs: Flag = False
    top_logprobs: Logprobs = 0
    tools: Annotated[list[Tool], Field(min_length=1, max_length=MAX_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: Flag = True
    reasoning_effort: ReasoningEffort | None = None
    include_reasoning: Flag = True
    thinking_token_budget: Annotated[Whole, Field(ge=0)] | None = None
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    add_generation_prompt: Flag = True
    add_special_tokens: Flag = False
    continue_final_message: Flag = False

    @model_validator(mode="after")
    def _chat_fields_agree(self) -> ChatRequest:
        if self.tool_choice not in (None, "none") and self.tools is None:
            raise contradiction("tool_choice", "`tool_choice` needs `tools`")
        if self.top_logprobs and not self.logprobs:
            raise contradiction("top_logprobs", "`top_logprobs` needs `logprobs` to be true")
        if self.continue_final_message and self.add_generation_prompt:
            message = "`continue_final_message` needs `add_generation_prompt` to be false: nobody else is to speak"
            raise contradiction("continue_final_message", message)
        check_tools(self.tools or [])
        usable(self.tools or [], self.tool_choice)
        return self

    def token_limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    def likeliest_tokens(self) -> int | None:
        return self.top_logprobs if self.logprobs else None

    def callable_tools(self) -> list[Tool]:
        """The tools that the answer may call."""
        return usable(self.tools or [], self.tool_choice)

    def must_call(self) -> bool:
        """Whether the answer has to be a tool call."""
        return must_call(self.tool_choice)

    def usable_tools(self) -> list[dict[str, Any]] | None:
        """The tools that the model is to be told of, as the client wrote them."""
        return [tool.model_dump(exclude_unset=True) for tool in self.callable_tools()] or None

    def effort(self, *, by_default: bool) -> ReasoningEffort | None:
        """How much the model is to reason, None for not at all; ``by_default`` says what it does unasked.

        ``chat_template_kwargs`` has the switches of Qwen3 (``enable_thinking``) and DeepSeek (``thinking``).
        """
        switches = [self.chat_template_kwargs.get(name) for name in ("enable_thinking", "thinking")]
        if self.reasoning_effort == "none" or False in switches:
            return None
        return self.reasoning_effort or ("medium" if by_default or True in switches else None)

    def repeated(self) -> str:
        """The last message's text if the answer is to begin with it: one that the assistant says, or goes on with."""
        last = self.messages[-1]
        return last.text() if self.echo and (last.role == "assistant" or not self.add_generation_prompt) else ""

    def size(self) -> int:
        """About how many characters the prompt has."""
        return sum(map(len_of, self.messages)) + CHARACTERS_PER_TOOL * len(self.tools or ())

    def conversation(self) -> list[dict[str, str]]:
        """The messages for the simulated engine; tools stand before them as JSON, so that they cost prompt tokens."""
        tools = self.usable_tools()
        before = [{"role": "system", "content": orjson.dumps(tools).decode()}] if tools else []
        return [*before, *(message.rendered() for message in self.messages)]


class CompletionRequest(CompletionFields):
    """Body of ``POST /v1/completions``; ``prompt`` is read as a list of prompts, each text or token ids."""

    prompt: Prompts
    max_tokens: Annotated[Whole, Field(ge=0)] | None = None
    logprobs: Logprobs | None = None
    suffix: str | None = None
    best_of: Annotated[Whole, Field(ge=1, le=MAX_CHOICES)] | None = None

    @model_validator(mode="after")
    def _completion_fields_agree(self) -> CompletionRequest:
        if self.max_tokens == 0 and not self.echo:
            raise contradiction("max_tokens", "`max_tokens` must be at least 1, unless the prompt is to be echoed")
        if self.echo and self.suffix:
            raise contradiction("suffix", "`suffix` cannot be told apart from an echoed prompt; leave one of them out")
        if self.best_of is not None and self.best_of < self.n:
            raise contradiction("best_of", "`best_of` must be at least `n`")
        if self.stream and self.sequences_per_prompt() > self.n:
            raise contradiction("best_of", "`best_of` above `n` cannot be streamed: which is best is known at the end")
        if len(self.prompt) * self.sequences_per_prompt() > MAX_SEQUENCES:
            raise contradiction("n", f"a request may have at most {MAX_SEQUENCES} answers to all its prompts")
        return self

    def token_limit(self) -> int:
        return 16 if self.max_tokens is None else self.max_tokens

    def sequences_per_prompt(self) -> int:
        return max(self.n, self.best_of or 0)

    def likeliest_tokens(self) -> int | None:
        return self.logprobs
