"""A value for every schema: what comes out satisfies it, or the schema is refused in a sentence."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from simserve.server.answers.json_values import Hints
from simserve.server.answers.schemas import check_schema, value_for
from simserve.server.errors import ApiError

NAMES = st.sampled_from(["name", "age", "tags", "home", "next"])
SMALL = st.integers(0, 5)


def between(low: str, high: str) -> st.SearchStrategy[dict[str, int]]:
    return st.tuples(SMALL, SMALL).map(lambda two: {low: min(two), high: max(two)})


STRINGS = st.one_of(
    between("minLength", "maxLength"),
    st.sampled_from([{}, {"format": "date-time"}, {"format": "uuid"}, {"format": "email"}, {"format": "ipv6"}]),
    st.sampled_from([{"pattern": p} for p in ("^[A-Z]{3}$", r"^\d+-\d+$", "a|b", "^(x|yz)*$", r"^\+?[0-9 ]{3,9}$")]),
).map(lambda keys: {"type": "string", **keys})
NUMBERS = st.builds(
    lambda kind, low, span, step: {"type": kind, "minimum": low, "maximum": low + span, **step},
    st.sampled_from(["integer", "number"]),
    st.integers(-1000, 1000),
    st.integers(10, 100),
    st.sampled_from([{}, {"multipleOf": 5}, {"exclusiveMinimum": -2000}]),
)
LEAVES = st.one_of(
    STRINGS,
    NUMBERS,
    st.sampled_from(
        [{"type": "boolean"}, {"type": "null"}, {}, True, {"const": [1, "x"]}, {"type": ["string", "null"]}]
    ),
    st.lists(st.one_of(st.integers(), st.text(max_size=5)), min_size=1, max_size=4).map(lambda all_: {"enum": all_}),
)


def objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    def build(properties: dict[str, Any], required: set[str], more: Any) -> dict[str, Any]:
        wanted = sorted(required & set(properties))
        return {"type": "object", "properties": properties, "required": wanted, "additionalProperties": more}

    return st.builds(build, st.dictionaries(NAMES, inner, max_size=4), st.sets(NAMES), st.one_of(st.booleans(), inner))


def arrays(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.builds(
        lambda items, limits: {"type": "array", "items": items, **limits}, inner, between("minItems", "maxItems")
    )


def unions(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.lists(inner, min_size=1, max_size=3).map(lambda branches: {"anyOf": branches})


SCHEMAS = st.recursive(LEAVES, lambda inner: st.one_of(objects(inner), arrays(inner), unions(inner)), max_leaves=12)


@settings(max_examples=200, deadline=None)
@given(SCHEMAS, st.text(max_size=5))
@example({"type": "integer", "minimum": 3, "exclusiveMaximum": 4}, "")
@example({"oneOf": [{"type": "integer", "multipleOf": 3}, {"type": "integer", "multipleOf": 5}]}, "")
@example({"allOf": [{"required": ["a"]}, {"properties": {"a": {"type": "integer"}}}], "type": "object"}, "")
@example({"type": "object", "minProperties": 3, "patternProperties": {"^x_": {"type": "null"}}}, "k")
@example({"type": "array", "contains": {"const": 7}, "items": {"type": "integer"}, "uniqueItems": True}, "k")
@example({"type": "array", "prefixItems": [{"const": 1}, {"type": "string"}], "items": False, "minItems": 2}, "")
@example({"if": {"type": "string"}, "then": {"minLength": 30}, "type": ["string", "integer"]}, "")
@example({"not": {"type": "string"}}, "")
def test_values_satisfy_their_schema_and_depend_on_the_key_alone(schema: Any, key: str) -> None:
    check_schema(schema, "schema")
    value = value_for(schema, key, Hints(), "schema")
    jsonschema.validate(json.loads(json.dumps(value)), schema)
    assert value_for(schema, key, Hints(), "schema") == value


def test_a_schema_may_refer_to_itself() -> None:
    tree: dict[str, Any] = {
        "$defs": {
            "node": {
                "type": "object",
                "properties": {"left": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}, "size": {"minimum": 1}},
                "required": ["left", "size"],
                "additionalProperties": False,
            }
        },
        "$ref": "#/$defs/node",
    }
    for key in "abcdefgh":
        jsonschema.validate(value_for(tree, key, Hints(), "schema"), tree)


def test_what_the_conversation_mentions_is_used() -> None:
    schema = {
        "type": "object",
        "properties": {"input": {"type": "integer"}, "city": {"enum": ["Rome", "Paris", "Oslo"]}},
        "required": ["input", "city"],
    }
    assert value_for(schema, "k", Hints.of("How warm are 3 days in Paris?"), "s") == {"input": 3, "city": "Paris"}


@pytest.mark.parametrize(
    ("schema", "low", "high"),
    [
        ({"type": "integer", "minimum": -(2**53) + 1, "maximum": 2**53 - 1}, 0, 100),
        ({"type": "integer", "minimum": 1, "maximum": 2**31 - 1}, 1, 101),
        ({"type": "integer", "exclusiveMinimum": -(2**63), "maximum": -5}, -105, -5),
        ({"type": "integer", "minimum": 2**40, "maximum": 2**63}, 2**40, 2**40 + 100),
        ({"type": "integer", "minimum": 1, "maximum": 10**12, "multipleOf": 10**7}, 10**7, 10**7),
        ({"type": "number", "minimum": -1.7e308, "maximum": 1.7e308}, 0, 100),
    ],
)
def test_numbers_are_small_where_the_bounds_are_those_of_a_type(schema: Any, low: int, high: int) -> None:
    for key in "abcdefgh":
        number = value_for(schema, key, Hints(), "schema")
        jsonschema.validate(number, schema)
        assert low <= number <= high


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integr"},
        {"properties": []},
        {"pattern": "("},
        {"type": "string", "pattern": "(a{999}){999}"},
        {"type": "integer", "minimum": 3, "maximum": 2},
        {"enum": []},
        {"$ref": "#/nowhere"},
        {"$ref": "https://example.com/schema.json"},
        {"$ref": "#"},
        {"type": "array", "minItems": 10**9},
        {"type": "string", "minLength": 10**9},
        {"type": "object", "minProperties": 10**9},
        {"type": "number", "minimum": 1e308, "multipleOf": 1e-300},
        {"not": {}},
        "text",
        7,
        json.loads('{"not":' * 900 + "{}" + "}" * 900),
    ],
)
def test_what_nothing_satisfies_is_refused_in_a_sentence(schema: Any) -> None:
    def ask() -> None:
        check_schema(schema, "some.field")
        value_for(schema, "k", Hints(), "some.field")

    with pytest.raises(ApiError, match=r"`some\.field`") as refused:
        ask()
    assert refused.value.status == 400
