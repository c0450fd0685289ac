"""Types of request fields, read as OpenAI's clients mean them, and errors that name the field that is wrong.

``null`` is the default of every field, ``3.0`` is a whole number, ``"3"`` and ``true`` are not, and fields that nobody
here knows are ignored because clients send extras.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from simserve.server.errors import ApiError

MAX_PROMPTS = 2048
MAX_STOPS = 64
MAX_LOGPROBS = 20
MAX_ALLOWED = 4096
MAX_LOGIT_BIAS = 100.0

Prompt = str | list[int]


class Fields(BaseModel):
    """A JSON object in which null means the default of any field."""

    model_config = ConfigDict(extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, fields: object) -> object:
        if isinstance(fields, dict):
            return {name: value for name, value in fields.items() if value is not None}
        return fields


def contradiction(field: str, sentence: str) -> PydanticCustomError:
    """What a validator of a whole body raises about ``field``; :func:`first_problem` names it."""
    return PydanticCustomError(field, sentence)


def first_problem(error: ValidationError) -> ApiError:
    """The first thing that is wrong, as a 400 whose ``param`` is the field."""
    problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(step) for step in problem["loc"])
    if not where:
        return ApiError(f"{problem['msg']}.", param=problem["type"])
    said = problem["msg"][:1].lower() + problem["msg"][1:]
    return ApiError(f"Invalid `{where}`: {said}.", param=where)


def _whole(value: object) -> object:
    """JSON knows no integers: 3.0 is one, true and "3" are not."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise PydanticCustomError("whole_number", "input should be a whole number")
    return value


def _stops(value: object) -> Sequence[str]:
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
        raise PydanticCustomError("prompt", f"give at most {MAX_PROMPTS} of them in one request")
    if all(isinstance(one, str) for one in value) or all(_is_token_ids(one) for one in value):
        return value
    raise PydanticCustomError("prompt", "give only strings, only whole numbers or only lists of whole numbers")


def _is_token_ids(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(type(one) is int and 0 <= one < 2**31 for one in value)


def _logit_bias(value: object) -> dict[int, float]:
    """OpenAI's map from token id, which JSON makes a string, to what is added to its logit."""
    if not isinstance(value, dict):
        raise PydanticCustomError("logit_bias", "input should be an object from token ids to numbers")
    biases: dict[int, float] = {}
    for token, bias in value.items():
        if not (isinstance(token, str) and token.isascii() and token.isdecimal()):
            raise PydanticCustomError("logit_bias", "the keys should be token ids")
        if isinstance(bias, bool) or not isinstance(bias, int | float) or not -MAX_LOGIT_BIAS <= bias <= MAX_LOGIT_BIAS:
            raise PydanticCustomError("logit_bias", "the values should be numbers from -100 to 100")
        biases[int(token)] = float(bias)
    return biases


def _limited(what: str) -> Callable[[int], int]:
    """As vLLM does with its own ``--max-logprobs``, in its words; -1 stands for the whole vocabulary."""

    def check(count: int) -> int:
        if count < -1:
            raise PydanticCustomError("logprobs", "it must be a positive value or -1")
        if count == -1 or count > MAX_LOGPROBS:
            asked = "the whole vocabulary (-1)" if count == -1 else str(count)
            raise PydanticCustomError(
                "logprobs", f"requested {what} logprobs of {asked}, which is greater than max allowed: {MAX_LOGPROBS}"
            )
        return count

    return check


Whole = Annotated[int, BeforeValidator(_whole)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Flag = Annotated[bool, Field(strict=True)]
Penalty = Annotated[Number, Field(ge=-2.0, le=2.0)]
STRINGS = {"type": "array", "items": {"type": "string"}}
IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
Stops = Annotated[
    Sequence[str],
    BeforeValidator(_stops),
    Field(max_length=MAX_STOPS),
    WithJsonSchema({"anyOf": [{"type": "string"}, {**STRINGS, "maxItems": MAX_STOPS}]}),
]
Prompts = Annotated[
    list[Prompt],
    BeforeValidator(_prompts),
    WithJsonSchema({"anyOf": [{"type": "string"}, STRINGS, IDS, {"type": "array", "items": IDS}]}),
]
TokenIds = Annotated[Sequence[Annotated[Whole, Field(ge=0, lt=2**31)]], Field(max_length=MAX_STOPS)]
AllowedTokens = Annotated[Sequence[Annotated[Whole, Field(ge=0, lt=2**31)]], Field(max_length=MAX_ALLOWED)]
LogitBias = Annotated[
    dict[int, float],
    BeforeValidator(_logit_bias),
    WithJsonSchema(
        {
            "type": "object",
            "propertyNames": {"pattern": "^[0-9]+$"},
            "additionalProperties": {"type": "number", "minimum": -MAX_LOGIT_BIAS, "maximum": MAX_LOGIT_BIAS},
        }
    ),
]
LOGPROBS = WithJsonSchema({"type": "integer", "minimum": 0, "maximum": MAX_LOGPROBS})
Logprobs = Annotated[Whole, AfterValidator(_limited("sample")), LOGPROBS]
PromptLogprobs = Annotated[Whole, AfterValidator(_limited("prompt")), LOGPROBS]
Truncation = Annotated[Whole, Field(ge=-1)] | None
"""vLLM's ``truncate_prompt_tokens``: the most tokens that are read of a prompt, -1 for as many as fit."""


def truncated(tokens: list[int], most: int | None, room: int, side: str, before: int = 0) -> list[int]:
    """``tokens`` without those on one ``side`` that are more than ``most``; -1 stands for ``room``.

    Of so many tokens ``before`` them all are kept, and count.
    """
    if most is None:
        return tokens
    kept = max(0, (room if most < 0 else most) - before)
    if len(tokens) <= kept:
        return tokens
    return tokens[:kept] if side == "right" else tokens[len(tokens) - kept :]
