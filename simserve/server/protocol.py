"""What clients send: the request bodies of the completion endpoints, validated.

Types are OpenAI's, read as its clients mean them: ``null`` is the default of every field, ``3.0`` is a whole number,
``"3"`` and ``true`` are not, and fields that nobody here knows are ignored because clients send extras. The sampling
fields (``temperature``, ``top_p``, ``top_k``, ``min_p`` and the penalties) are checked for range and change
nothing else: simulated text is not sampled. Temperature 0 makes the text independent of ``seed``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from simserve.server.errors import ApiError
from simserve.server.unsupported import refuse_unsupported

MAX_CHOICES = 8
MAX_PROMPTS = 2048
MAX_STOPS = 64

Body = TypeVar("Body", bound=BaseModel)
Prompt = str | list[int]


def parse(body: bytes, kind: type[Body], defaults: Mapping[str, Any] | None = None) -> Body:
    """Read ``body`` as JSON of this kind; raises :class:`ApiError` (400) naming the first thing that is wrong.

    ``defaults`` are this server's, for fields that the client leaves open.
    """
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ApiError(f"The request body is not valid JSON: {error}.") from None
    if not isinstance(fields, dict):
        raise ApiError("The request body must be a JSON object.")
    refuse_unsupported(fields)
    fields |= {name: value for name, value in (defaults or {}).items() if fields.get(name) is None}
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise _first_problem(error) from None


def _first_problem(error: ValidationError) -> ApiError:
    problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(step) for step in problem["loc"]) or None
    said = problem["msg"][:1].lower() + problem["msg"][1:]
    return ApiError(f"Invalid `{where}`: {said}." if where else f"{problem['msg']}.", param=where)


def _whole(value: object) -> object:
    """JSON knows no integers: 3.0 is one, true and "3" are not."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise PydanticCustomError("whole_number", "input should be a whole number")
    return value


def _stops(value: object) -> list[str]:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise PydanticCustomError("stop", "input should be a string or a list of strings")
    if "" in stops:
        raise PydanticCustomError("stop", "a stop string must not be empty")
    return stops


def _prompts(value: object) -> list[Prompt]:
    """One prompt or many, each text or token ids, as a list of prompts."""
    if isinstance(value, str) or _is_token_ids(value):
        return [value]  # type: ignore[list-item]
    if not isinstance(value, list) or not value:
        raise PydanticCustomError("prompt", "give a string, a list of strings, token ids or lists of token ids")
    if len(value) > MAX_PROMPTS:
        raise PydanticCustomError("prompt", f"give at most {MAX_PROMPTS} prompts in one request")
    if all(isinstance(one, str) for one in value) or all(_is_token_ids(one) for one in value):
        return value
    raise PydanticCustomError("prompt", "give only strings, only whole numbers or only lists of whole numbers")


def _is_token_ids(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(type(one) is int and 0 <= one < 2**31 for one in value)


Whole = Annotated[int, BeforeValidator(_whole)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Flag = Annotated[bool, Field(strict=True)]
Penalty = Annotated[Number, Field(ge=-2.0, le=2.0)]


class _Fields(BaseModel):
    """null means the default of any field."""

    model_config = ConfigDict(extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, fields: object) -> object:
        if isinstance(fields, dict):
            return {name: value for name, value in fields.items() if value is not None}
        return fields


class StreamOptions(_Fields):
    """``continuous_usage_stats`` (vLLM's) puts the usage so far on every chunk; it needs ``include_usage``."""

    include_usage: Flag = False
    continuous_usage_stats: Flag = False


class CompletionFields(_Fields):
    """What both completion endpoints take."""

    model: str | None = None
    max_tokens: Annotated[Whole, Field(ge=1)] | None = None
    min_tokens: Annotated[Whole, Field(ge=0)] = 0
    n: Annotated[Whole, Field(ge=1, le=MAX_CHOICES)] = 1
    stream: Flag = False
    stream_options: StreamOptions | None = None
    seed: Annotated[Whole, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Annotated[list[str], BeforeValidator(_stops), Field(max_length=MAX_STOPS)] = []
    include_stop_str_in_output: Flag = False
    ignore_eos: Flag = False
    priority: Whole = 0
    temperature: Annotated[Number, Field(ge=0.0, le=2.0)] = 1.0
    top_p: Annotated[Number, Field(gt=0.0, le=1.0)] = 1.0
    top_k: Annotated[Whole, Field(ge=-1)] = -1
    min_p: Annotated[Number, Field(ge=0.0, le=1.0)] = 0.0
    frequency_penalty: Penalty = 0.0
    presence_penalty: Penalty = 0.0
    repetition_penalty: Annotated[Number, Field(gt=0.0)] = 1.0
    user: str | None = None

    @model_validator(mode="after")
    def _fields_agree(self) -> CompletionFields:
        if self.stream_options is not None and not self.stream:
            raise PydanticCustomError("stream_options", "`stream_options` is only allowed when `stream` is true")
        limit = self.token_limit()
        if limit is not None and self.min_tokens > limit:
            raise PydanticCustomError("min_tokens", "`min_tokens` must not exceed the most tokens allowed")
        return self

    def token_limit(self) -> int | None:
        """The most tokens the client wants, or None where it left that open."""
        return self.max_tokens

    def usage_in_stream(self) -> bool:
        """Whether a stream ends with a chunk of usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    def usage_in_every_chunk(self) -> bool:
        """Whether every chunk carries the usage so far."""
        return self.usage_in_stream() and self.stream_options.continuous_usage_stats  # type: ignore[union-attr]


class TextPart(BaseModel):
    """One part of a message's content; a language model takes text alone."""

    type: Literal["text", "input_text"]
    text: str


class Message(BaseModel):
    """One message; earlier tool calls in it are part of what the model reads, so they are kept."""

    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[TextPart] | None = None
    tool_calls: list[Any] | None = None

    @model_validator(mode="before")
    @classmethod
    def _content_is_there(cls, fields: object) -> object:
        if isinstance(fields, dict) and "content" not in fields and not fields.get("tool_calls"):
            raise PydanticCustomError("content", "a message needs `content`: a string or a list of text parts")
        return fields

    def rendered(self) -> dict[str, str]:
        """Role and content as one string, tool calls as JSON after it; no content at all reads as empty."""
        parts = self.content if isinstance(self.content, list) else [TextPart(type="text", text=self.content or "")]
        content = "\n".join(part.text for part in parts)
        return {"role": self.role, "content": content + (_json(self.tool_calls) if self.tool_calls else "")}


class ChatRequest(CompletionFields):
    """Body of ``POST /v1/chat/completions``; ``max_completion_tokens`` wins over ``max_tokens``."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[Whole, Field(ge=1)] | None = None
    tools: Annotated[list[dict[str, Any]], Field(min_length=1)] | None = None
    tool_choice: Literal["none", "auto"] | None = None

    @model_validator(mode="after")
    def _choice_has_tools(self) -> ChatRequest:
        if self.tool_choice == "auto" and self.tools is None:
            raise PydanticCustomError("tool_choice", "`tool_choice` needs `tools`")
        return self

    def token_limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    def conversation(self) -> list[dict[str, str]]:
        """The messages to render; tools stand before them as JSON, so that they cost prompt tokens."""
        messages = [message.rendered() for message in self.messages]
        if self.tools is None or self.tool_choice == "none":
            return messages
        return [{"role": "system", "content": _json(self.tools)}, *messages]


class CompletionRequest(CompletionFields):
    """Body of ``POST /v1/completions``; ``prompt`` is read as a list of prompts, each text or token ids."""

    prompt: Annotated[list[Prompt], BeforeValidator(_prompts)]

    def token_limit(self) -> int:
        return self.max_tokens or 16


def _json(value: object) -> str:
    return orjson.dumps(value).decode()
