"""Chat messages as clients send them, and as a prompt takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from simserve.server.media.parts import AudioPart, ImagePart, MediaPart, VideoPart

MARK = "\ufdd0"
"""Stands in a rendered prompt where a picture or a sound is; a code point that Unicode keeps out of texts."""


class TextPart(BaseModel):
    """A part of a message's content that is text."""

    type: Literal["text", "input_text", "output_text"]
    text: str


class RefusalPart(BaseModel):
    """What an assistant said instead of an answer; a model reads it as text."""

    type: Literal["refusal"]
    refusal: str

    @property
    def text(self) -> str:
        return self.refusal


Part = Annotated[TextPart | RefusalPart | ImagePart | AudioPart | VideoPart, Field(discriminator="type")]


class Message(BaseModel):
    """One message; earlier tool calls in it are part of what the model reads, so they are kept."""

    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[Any] | None = None
    tool_call_id: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _content_is_there(cls, fields: object) -> object:
        if isinstance(fields, dict) and "content" not in fields and not fields.get("tool_calls"):
            raise PydanticCustomError("content", "a message needs `content`: a string or a list of parts")
        return fields

    def text(self) -> str:
        """The content's text as one string; no content at all reads as empty."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content if isinstance(part, TextPart | RefusalPart))
        return self.content or ""

    def media(self) -> list[MediaPart]:
        """The pictures, films and sounds in the content, in their order."""
        parts = self.content if isinstance(self.content, list) else []
        return [part for part in parts if isinstance(part, MediaPart)]

    def rendered(self) -> dict[str, str]:
        """Role and content as one string, :data:`MARK` for each of :meth:`media`, tool calls as JSON after it."""
        calls = orjson.dumps(self.tool_calls).decode() if self.tool_calls else ""
        return {"role": self.role, "content": self._with_marks() + calls}

    def for_template(self) -> dict[str, Any]:
        """The message as chat templates read it: content as one string, arguments of tool calls as objects."""
        optional = {
            "name": self.name,
            "tool_call_id": self.tool_call_id,
            "tool_calls": [_with_arguments_read(call) for call in self.tool_calls] if self.tool_calls else None,
        }
        given = {name: value for name, value in optional.items() if value is not None}
        return {"role": self.role, "content": self.text(), **given}

    def _with_marks(self) -> str:
        if not self.media():
            return self.text()
        assert isinstance(self.content, list)
        return "\n".join(
            part.text.replace(MARK, "") if isinstance(part, TextPart | RefusalPart) else MARK for part in self.content
        )


Messages = Annotated[list[Message], Field(min_length=1)]


def len_of(message: Message) -> int:
    """About how many characters of a prompt it takes."""
    content = message.content
    parts = content if isinstance(content, list) else ()
    said = len(content) if isinstance(content, str) else sum(len(getattr(part, "text", "")) for part in parts)
    return 100 + said + 100 * len(message.tool_calls or ())


def last_words(messages: Sequence[Message]) -> str:
    """What was said last by somebody other than the model: what it is to answer."""
    return next((message.text() for message in reversed(messages) if message.role == "user"), "")


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
