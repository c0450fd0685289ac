"""What clients send to the completion endpoints: the request bodies, validated.

Ranges are those of OpenAI and vLLM. The simulated engine checks the sampling fields (``temperature``, ``top_p``,
``top_k``, ``min_p`` and the penalties) for range and makes nothing else of them: simulated text is not sampled.
Temperature 0 makes its text independent of ``seed``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import BaseModel, Field, ValidationError, model_validator

from simserve.server.errors import ApiError
from simserve.server.fields import (
    Fields,
    Flag,
    LogitBias,
    Logprobs,
    Number,
    Penalty,
    Prompts,
    Stops,
    TokenIds,
    Whole,
    contradiction,
    first_problem,
)
from simserve.server.messages import Messages

MAX_CHOICES = 8

Body = TypeVar("Body", bound=BaseModel)


def parse(
    body: bytes,
    kind: type[Body],
    refuse: Callable[[dict[str, Any]], None] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Body:
    """Read ``body`` as JSON of this kind; raises :class:`ApiError` (400) naming the first thing that is wrong.

    ``refuse`` is asked first: it raises for fields that the engine behind the server cannot honour. ``defaults`` are
    this server's, for fields that the client leaves open.
    """
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ApiError(f"The request body is not valid JSON: {error}.") from None
    if not isinstance(fields, dict):
        raise ApiError("The request body must be a JSON object.")
    if refuse is not None:
        refuse(fields)
    fields |= {name: value for name, value in (defaults or {}).items() if fields.get(name) is None}
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise first_problem(error) from None


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


class CompletionFields(SamplingFields):
    """What both completion endpoints take."""

    model: str | None = None
    max_tokens: Annotated[Whole, Field(ge=1)] | None = None
    min_tokens: Annotated[Whole, Field(ge=0)] = 0
    n: Annotated[Whole, Field(ge=1, le=MAX_CHOICES)] = 1
    stream: Flag = False
    stream_options: StreamOptions | None = None
    priority: Whole = 0
    user: str | None = None

    @model_validator(mode="after")
    def _fields_agree(self) -> CompletionFields:
        if self.stream_options is not None and not self.stream:
            raise contradiction("stream_options", "`stream_options` is only allowed when `stream` is true")
        limit = self.token_limit()
        if limit is not None and self.min_tokens > limit:
            raise contradiction("min_tokens", "`min_tokens` must not exceed the most tokens allowed")
        return self

    def token_limit(self) -> int | None:
        """The most tokens the client wants, or None where it left that open."""
        return self.max_tokens

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
    tools: Annotated[list[dict[str, Any]], Field(min_length=1)] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _chat_fields_agree(self) -> ChatRequest:
        if self.tool_choice == "auto" and self.tools is None:
            raise contradiction("tool_choice", "`tool_choice` needs `tools`")
        if self.top_logprobs and not self.logprobs:
            raise contradiction("top_logprobs", "`top_logprobs` needs `logprobs` to be true")
        return self

    def token_limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    def likeliest_tokens(self) -> int | None:
        return self.top_logprobs if self.logprobs else None

    def usable_tools(self) -> list[dict[str, Any]] | None:
        """The tools that the model is to be told of."""
        return None if self.tool_choice == "none" else self.tools

    def conversation(self) -> list[dict[str, str]]:
        """The messages for the simulated engine; tools stand before them as JSON, so that they cost prompt tokens."""
        tools = self.usable_tools()
        before = [{"role": "system", "content": orjson.dumps(tools).decode()}] if tools else []
        return [*before, *(message.rendered() for message in self.messages)]


class CompletionRequest(CompletionFields):
    """Body of ``POST /v1/completions``; ``prompt`` is read as a list of prompts, each text or token ids."""

    prompt: Prompts
    logprobs: Logprobs | None = None
    echo: Flag = False

    @model_validator(mode="after")
    def _logprobs_are_of_the_answer(self) -> CompletionRequest:
        if self.echo and self.logprobs is not None:
            raise contradiction("echo", "`echo` with `logprobs` is not supported: there are none of the prompt")
        return self

    def token_limit(self) -> int:
        return self.max_tokens or 16

    def likeliest_tokens(self) -> int | None:
        return self.logprobs
