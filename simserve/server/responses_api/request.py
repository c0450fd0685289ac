"""Bodies of ``POST /v1/responses``, and the chats that they amount to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, model_validator

from simserve.server.errors import ApiError
from simserve.server.fields import Fields, Flag, Logprobs, Number, Whole, contradiction
from simserve.server.protocol import MAX_TOOLS, ReasoningEffort

Json = dict[str, Any]

ELSEWHERE = ("conversation", "prompt")
"""Fields that name what OpenAI keeps for its customers and nobody keeps here: they would change what is read."""


def refuse(fields: Json) -> None:
    """Raise :class:`ApiError` (400) for fields of a body that cannot be honoured."""
    for name in ELSEWHERE:
        if fields.get(name) is not None:
            message = f"`{name}` is not supported: nothing is kept here but responses; see `previous_response_id`."
            raise ApiError(message, param=name, code="unsupported")


class TextFormat(Fields):
    """What form the text has to have."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str = "response"
    json_schema: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class TextSettings(Fields):
    """``text`` of the body."""

    format: TextFormat = Field(default_factory=TextFormat)
    verbosity: Literal["low", "medium", "high"] | None = None


class Reasoning(Fields):
    """``reasoning`` of the body."""

    effort: ReasoningEffort | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None


class FunctionTool(BaseModel):
    """A function that may be called; the other tools of OpenAI's are services that are not here."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["function"]
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ResponsesRequest(Fields):
    """The body; ``input`` is a text or a list of items."""

    model: str | None = None
    input: str | Annotated[list[Json], Field(min_length=1)]
    instructions: str | None = None
    max_output_tokens: Annotated[Whole, Field(ge=1)] | None = None
    temperature: Annotated[Number, Field(ge=0.0, le=2.0)] = 1.0
    top_p: Annotated[Number, Field(gt=0.0, le=1.0)] = 1.0
    top_logprobs: Logprobs = 0
    stream: Flag = False
    store: Flag = True
    background: Flag = False
    previous_response_id: str | None = None
    tools: Annotated[list[FunctionTool], Field(max_length=MAX_TOOLS)] = Field(default_factory=list)
    tool_choice: Literal["none", "auto", "required"] | Json = "auto"
    parallel_tool_calls: Flag = True
    text: TextSettings = Field(default_factory=TextSettings)
    reasoning: Reasoning = Field(default_factory=Reasoning)
    truncation: Literal["auto", "disabled"] = "disabled"
    metadata: dict[str, str] = Field(default_factory=dict)
    include: list[str] = Field(default_factory=list)
    user: str | None = None
    seed: Whole | None = None
    priority: Whole = 0

    @model_validator(mode="after")
    def _it_can_be_done(self) -> ResponsesRequest:
        if self.background and not self.store:
            raise contradiction("background", "background can only be used when `store` is true")
        if self.background and self.stream:
            raise contradiction("background", "`background` cannot be streamed; look the response up by its id")
        return self

    def messages(self) -> list[Json]:
        """The input as messages of a chat; raises :class:`ApiError` (400) for items that are none."""
        if isinstance(self.input, str):
            return [{"role": "user", "content": self.input}]
        messages = [message for at, item in enumerate(self.input) for message in _messages(item, f"input.{at}")]
        if not messages:
            raise ApiError("`input` has nothing that a model could answer.", param="input")
        return messages

    def chat(self, earlier: Sequence[Json]) -> Json:
        """The body of the chat that this amounts to, after the messages ``earlier``."""
        first = [{"role": "system", "content": self.instructions}] if self.instructions else []
        wants_logprobs = self.top_logprobs > 0 or "message.output_text.logprobs" in self.include
        body: Json = {
            "model": self.model,
            "messages": [*first, *earlier, *self.messages()],
            "max_completion_tokens": self.max_output_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "seed": self.seed,
            "priority": self.priority,
            "logprobs": wants_logprobs,
            "top_logprobs": self.top_logprobs,
            "reasoning_effort": self.reasoning.effort,
            "user": self.user,
        }
        if self.tools:
            body |= {
                "tools": [_chat_tool(tool) for tool in self.tools],
                "tool_choice": self._chat_choice(),
                "parallel_tool_calls": self.parallel_tool_calls,
            }
        elif self.tool_choice not in ("auto", "none"):
            raise ApiError("`tool_choice` needs `tools`.", param="tool_choice")
        if self.text.format.type != "text":
            body["response_format"] = self._chat_format()
        return {name: value for name, value in body.items() if value is not None}

    def _chat_choice(self) -> Any:
        choice = self.tool_choice
        if not isinstance(choice, dict):
            return choice
        if choice.get("type") == "allowed_tools":
            tools = choice.get("tools")
            named = [{"type": "function", "function": one} for one in tools] if isinstance(tools, list) else []
            return {"type": "allowed_tools", "allowed_tools": {"mode": choice.get("mode", "auto"), "tools": named}}
        return {"type": choice.get("type"), "function": {"name": choice.get("name")}}

    def _chat_format(self) -> Json:
        form = self.text.format
        if form.type == "json_object":
            return {"type": "json_object"}
        if form.json_schema is None:
            raise ApiError("`text.format` of type json_schema needs a `schema`.", param="text.format")
        return {"type": "json_schema", "json_schema": {"name": form.name, "schema": form.json_schema}}


def _chat_tool(tool: FunctionTool) -> Json:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": {name: value for name, value in function.items() if value is not None}}


def _messages(item: Mapping[str, Any], where: str) -> list[Json]:
    """The messages that one item of the input stands for."""
    kind = item.get("type") or "message"
    if kind == "message":
        return [{"role": item.get("role"), "content": _content(item.get("content"), where)}]
    if kind == "function_call":
        function = {"name": item.get("name"), "arguments": item.get("arguments")}
        call = {"id": item.get("call_id"), "type": "function", "function": function}
        return [{"role": "assistant", "content": None, "tool_calls": [call]}]
    if kind == "function_call_output":
        output = item.get("output")
        text = output if isinstance(output, str) else orjson.dumps(output).decode()
        return [{"role": "tool", "tool_call_id": str(item.get("call_id")), "content": text}]
    if kind == "reasoning":
        return []  # models are not shown what they thought before
    raise ApiError(f"Items of type {kind!r} are not supported in the input.", param=where)


def _content(content: Any, where: str) -> Any:
    if not isinstance(content, list):
        return content
    return [_part(part, where) for part in content]


def _part(part: Any, where: str) -> Any:
    if isinstance(part, dict) and part.get("type") == "input_image":
        if not isinstance(part.get("image_url"), str):
            raise ApiError("A picture needs an `image_url`; there are no uploaded files here.", param=where)
        return {"type": "image_url", "image_url": {"url": part["image_url"], "detail": part.get("detail") or "auto"}}
    return part
