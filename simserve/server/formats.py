"""What an answer has to look like: ``response_format`` and vLLM's ``structured_outputs``."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

import orjson
from pydantic import BaseModel, ConfigDict, Field

from simserve.server.answers.grammars import Grammar, GrammarError, read_grammar, read_structural_tag
from simserve.server.answers.json_values import Hints
from simserve.server.answers.schemas import check_schema, value_for
from simserve.server.answers.too_large import TooLarge
from simserve.server.errors import ApiError
from simserve.server.fields import Fields, Flag

ANY_OBJECT: dict[str, Any] = {
    "type": "object",
    "properties": {"answer": {"type": "string"}, "details": {"type": "array", "items": {"type": "string"}}},
    "required": ["answer"],
}
"""What is written for ``json_object``, which asks for an object and does not say which."""


class JsonSchemaFormat(BaseModel):
    """A schema by its name."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    name: str = "response"
    description: str | None = None
    json_schema: dict[str, Any] | bool = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(Fields):
    """OpenAI's ``response_format``, with vLLM's structural tags."""

    type: Literal["text", "json_object", "json_schema", "structural_tag"]
    json_schema: JsonSchemaFormat | None = None
    format: dict[str, Any] | None = None
    structures: list[Any] | None = None
    triggers: list[Any] | None = None

    def wanted(self) -> Wanted | None:
        """What the text has to be; None for any text. Raises :class:`ApiError` (400) for a broken schema."""
        if self.type == "text":
            return None
        if self.type == "json_object":
            return OfSchema(ANY_OBJECT, "response_format")
        if self.type == "structural_tag":
            tag = {"format": self.format, "structures": self.structures, "triggers": self.triggers}
            return _tagged(tag, "response_format")
        if self.json_schema is None:
            raise ApiError("`response_format` of type json_schema needs `json_schema`.", param="response_format")
        check_schema(self.json_schema.json_schema, "response_format.json_schema.schema")
        return OfSchema(self.json_schema.json_schema, "response_format.json_schema.schema")


class StructuredOutputs(Fields):
    """vLLM's ``structured_outputs``: one of these."""

    json_: dict[str, Any] | str | None = Field(default=None, alias="json")
    regex: str | None = None
    choice: Annotated[list[str], Field(min_length=1)] | None = None
    json_object: Flag = False
    grammar: str | None = None
    structural_tag: str | None = None

    def wanted(self) -> Wanted | None:
        """As for a ``response_format``."""
        given = [name for name in type(self).model_fields if getattr(self, name)]
        if len(given) != 1:
            raise ApiError("Give exactly one kind of `structured_outputs`.", param="structured_outputs")
        param = f"structured_outputs.{given[0].rstrip('_')}"
        if self.grammar:
            return OfGrammar(_grammatical(lambda: read_grammar(self.grammar or ""), param), param)
        if self.structural_tag:
            return _tagged(self.structural_tag, param)
        if self.choice:
            return OfSchema({"enum": self.choice}, param, is_json=False)
        if self.json_object:
            return OfSchema(ANY_OBJECT, param)
        if self.regex:
            schema: Any = {"type": "string", "pattern": f"^(?:{self.regex})$"}
            check_schema(schema, param)
            return OfSchema(schema, param, is_json=False)
        schema = _read(self.json_, param)
        check_schema(schema, param)
        return OfSchema(schema, param)


class Wanted(Protocol):
    """The form that a text has to have."""

    def text(self, key: str, asked: str) -> str:
        """A text of that form, the same for the same ``key``; what ``asked`` mentions is preferred where it fits.

        Raises :class:`ApiError` (400) where none is found.
        """
        ...


@dataclass(frozen=True)
class OfSchema:
    """The text is JSON that satisfies ``schema``, or, unless ``is_json``, a string that does, as it is."""

    schema: Any
    param: str
    is_json: bool = True

    def text(self, key: str, asked: str) -> str:
        """See :class:`Wanted`."""
        value = value_for(self.schema, key, Hints.of(asked), self.param)
        return json.dumps(value, ensure_ascii=False) if self.is_json else str(value)


@dataclass(frozen=True)
class OfGrammar:
    """The text satisfies ``grammar``."""

    grammar: Grammar
    param: str

    def text(self, key: str, asked: str) -> str:
        """See :class:`Wanted`."""
        try:
            return self.grammar.text(key, asked, self.param)
        except TooLarge as error:
            raise ApiError(f"Invalid `{self.param}`: {error}.", param=self.param) from None


def _tagged(tag: Any, param: str) -> Wanted:
    return OfGrammar(_grammatical(lambda: read_structural_tag(tag, param), param), param)


def _grammatical(read: Callable[[], Grammar], param: str) -> Grammar:
    try:
        return read()
    except GrammarError as error:
        raise ApiError(f"Invalid `{param}`: {error}.", param=param) from None


def _read(schema: Any, param: str) -> Any:
    if not isinstance(schema, str):
        return schema
    try:
        return orjson.loads(schema)
    except orjson.JSONDecodeError:
        raise ApiError(f"Invalid `{param}`: it is not JSON.", param=param) from None
