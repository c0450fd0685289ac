"""JSON schemas that clients send: checked at the door, and values that satisfy them."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import Draft202012Validator, validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from simserve.server.answers.json_values import Hints, JsonSampler
from simserve.server.answers.too_large import TooLarge
from simserve.server.errors import ApiError

Schema = Mapping[str, Any] | bool

TRIES = 40
"""How often a value is drawn before a schema counts as one that nothing satisfies; the later half are small values."""

MAX_SCHEMA_CHARACTERS = 256 * 1024


def check_schema(schema: object, param: str) -> None:
    """Raise :class:`ApiError` (400), naming ``param``, for what is not a JSON schema or cannot be written for."""
    if not isinstance(schema, dict | bool):
        raise ApiError(f"Invalid `{param}`: a JSON schema is an object.", param=param)
    try:
        raw = _written(schema)
    except RecursionError:
        raise ApiError(f"Invalid `{param}`: the schema is nested too deeply.", param=param) from None
    if len(raw) > MAX_SCHEMA_CHARACTERS:
        raise ApiError(f"Invalid `{param}`: it has more than {MAX_SCHEMA_CHARACTERS} characters.", param=param)
    problem = _problem_of(raw)
    if problem:
        raise ApiError(f"Invalid `{param}`: {problem}.", param=param)


def value_for(schema: Schema, key: str, hints: Hints, param: str) -> Any:
    """A value that satisfies ``schema``, the same for the same ``key``; numbers and words of ``hints`` where they fit.

    Raises :class:`ApiError` (400), naming ``param``, if none is found.
    """
    validator = _validator(_written(schema))
    for attempt in range(TRIES):
        rng = random.Random(f"{key}|{attempt}")
        sampler = JsonSampler(schema, rng, hints if attempt < TRIES // 4 else Hints(), is_small=attempt >= TRIES // 2)
        try:
            value = sampler.value(schema)
            validator.validate(value)
        except ValidationError:
            continue
        except (TooLarge, Unresolvable, RecursionError) as error:
            why = error if isinstance(error, TooLarge) else "it refers to what is not there, or to itself without end"
            raise ApiError(f"Invalid `{param}`: {why}.", param=param) from None
        return value
    raise ApiError(f"Invalid `{param}`: no value was found that satisfies the schema; make it simpler.", param=param)


def _written(schema: Schema) -> str:
    return json.dumps(schema, sort_keys=True)


@lru_cache(maxsize=256)
def _validator(raw: str) -> Validator:
    schema = json.loads(raw)
    # With a registry of its own it fetches nothing from anywhere.
    kind = validator_for(schema, default=Draft202012Validator)
    return kind(schema, registry=Registry(), format_checker=kind.FORMAT_CHECKER)


@lru_cache(maxsize=256)
def _problem_of(raw: str) -> str | None:
    schema = json.loads(raw)
    try:
        validator_for(schema, default=Draft202012Validator).check_schema(schema)
    except SchemaError as error:
        where = ".".join(map(str, error.absolute_path))
        return f"{where + ': ' if where else ''}{error.message}"
    except RecursionError:
        return "the schema is nested too deeply"
    return next((trouble for pattern in _patterns(schema) if (trouble := _trouble_with(pattern))), None)


def _patterns(schema: Any) -> list[str]:
    """Every regular expression in the schema."""
    if isinstance(schema, list):
        return [pattern for item in schema for pattern in _patterns(item)]
    if not isinstance(schema, dict):
        return []
    found = [value for name, value in schema.items() if name == "pattern" and isinstance(value, str)]
    properties = schema.get("patternProperties")
    found += list(properties) if isinstance(properties, dict) else []
    return found + [pattern for value in schema.values() for pattern in _patterns(value)]


def _trouble_with(pattern: str) -> str | None:
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return f"the pattern {pattern!r} cannot be read ({error})"
    return None
