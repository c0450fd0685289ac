"""What an answer has to look like: ``response_format`` and vLLM's ``structured_outputs``, read as one JSON schema."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from simserve.server.answers.schemas import check_schema
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
    """OpenAI's ``response_format``."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None

    def wanted(self) -> Wanted | None:
        """What the text has to be; None for any text. Raises :class:`ApiError` (400) for a broken schema."""
        if self.type == "text":
            return None
        if self.type == "json_object":
            return Wanted(schema=ANY_OBJECT)
        if self.json_schema is None:
            raise ApiError("`response_format` of type json_schema needs `json_schema`.", param="response_format")
        check_schema(self.json_schema.json_schema, "response_format.json_schema.schema")
        return Wanted(schema=self.json_schema.json_schema, param="response_format.json_schema.schema")


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
        if given[0] in ("grammar", "structural_tag"):
            raise ApiError(f"`{param}` is not supported; use json, regex or choice.", param=param, code="unsupported")
        if self.choice:
            return Wanted(schema={"enum": self.choice}, param=param, is_json=False)
        if self.json_object:
            return Wanted(schema=ANY_OBJECT, param=param)
        if self.regex:
            schema: Any = {"type": "string", "pattern": f"^(?:{self.regex})$"}
            check_schema(schema, param)
            return Wanted(schema=schema, param=param, is_json=False)
        schema = _read(self.json_, param)
        check_schema(schema, param)
        return Wanted(schema=schema, param=param)


class Wanted(BaseModel):
    """The text is JSON that satisfies ``schema``, or, unless ``is_json``, a string that does, as it is."""

    model_config = ConfigDict(frozen=True)

    schema_: Any = Field(alias="schema")
    param: str = "response_format"
    is_json: bool = True


def _read(schema: Any, param: str) -> Any:
    import orjson

    if not isinstance(schema, str):
        return schema
    try:
        return orjson.loads(schema)
    except orjson.JSONDecodeError:
        raise ApiError(f"Invalid `{param}`: it is not JSON.", param=param) from None
