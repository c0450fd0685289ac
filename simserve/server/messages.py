"""Chat messages as clients send them, and as a prompt takes them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError


class TextPart(BaseModel):
    """One part of a message's content; a language model takes text alone."""

    type: Literal["text", "input_text"]
    text: str


class Message(BaseModel):
    """One message; earlier tool calls in it are part of what the model reads, so they are kept."""

    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    tool_calls: list[Any] | None = None
    tool_call_id: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _content_is_there(cls, fields: object) -> object:
        if isinstance(fields, dict) and "content" not in fields and not fields.get("tool_calls"):
            raise PydanticCustomError("content", "a message needs `content`: a string or a list of text parts")
        return fields

    def text(self) -> str:
        """The content as one string; no content at all reads as empty."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""

    def rendered(self) -> dict[str, str]:
        """Role and content as one string, tool calls as JSON after it: what the simulated engine reads."""
        calls = orjson.dumps(self.tool_calls).decode() if self.tool_calls else ""
        return {"role": self.role, "content": self.text() + calls}

    def for_template(self) -> dict[str, Any]:
        """The message as chat templates read it: content as one string, arguments of tool calls as objects."""
        optional = {
            "name": self.name,
            "tool_call_id": self.tool_call_id,
            "tool_calls": [_with_arguments_read(call) for call in self.tool_calls] if self.tool_calls else None,
        }
        given = {name: value for name, value in optional.items() if value is not None}
        return {"role": self.role, "content": self.text(), **given}


Messages = Annotated[list[Message], Field(min_length=1)]


def _with_arguments_read(call: Any) -> Any:
    """A tool call whose arguments, JSON in a string by OpenAI's rules, are read where they can be."""
    function = call.get("function") if isinstance(call, dict) else None
    arguments = function.get("arguments") if isinstance(function, dict) else None
    if not isinstance(arguments, str):
        return call
    try:
        return {**call, "function": {**function, "arguments": orjson.loads(arguments)}}  # type: ignore[dict-item]
    except orjson.JSONDecodeError:
        return call
