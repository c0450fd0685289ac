"""Draws a JSON value for a JSON schema; the caller validates it, and draws again where keywords interfere."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simserve.server.answers.patterns import PatternSampler
from simserve.server.answers.string_formats import FORMATS, words
from simserve.server.answers.too_large import TooLarge

MAX_ITEMS = 1_000
MAX_CHARACTERS = 10_000
LARGE = 1e6
"""A bound beyond this is a type's, not a limit of what is meant: clients write those of 53-bit integers, for one."""
DEEP = 6
"""Below this, only what a schema requires is drawn; far below, a schema that goes on counts as endless."""
TOO_DEEP = 40

ANYTHING = ("string", "integer", "boolean")
"""What stands where a schema does not say."""

NUMBER_KEYS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
ARRAY_KEYS = ("items", "prefixItems", "minItems", "maxItems", "contains", "uniqueItems")
OBJECT_KEYS = ("properties", "required", "additionalProperties", "patternProperties", "minProperties")
STRING_KEYS = ("pattern", "format", "minLength", "maxLength")


@dataclass(frozen=True)
class Hints:
    """What the conversation mentions: preferred where a schema leaves a choice, as a model would."""

    numbers: tuple[float, ...] = ()
    text: str = ""

    @classmethod
    def of(cls, text: str) -> Hints:
        """The numbers in ``text``, and the text for looking up names."""
        found = re.findall(r"(?<![\w.])-?\d{1,15}(?:\.\d{1,15})?(?![\w])", text[-4000:])
        return cls(tuple(float(number) for number in found), text[-4000:].lower())


class JsonSampler:
    """Draws values with ``rng``; ``is_small`` leaves out everything that may be left out."""

    def __init__(self, root: Any, rng: random.Random, hints: Hints, *, is_small: bool) -> None:
        self._root = root
        self._rng = rng
        self._hints = hints
        self._is_small = is_small
        self._depth = 0

    def value(self, schema: Any) -> Any:
        """A value for ``schema``, a part of the root. Raises :class:`TooLarge`."""
        self._depth += 1
        try:
            if self._depth > TOO_DEEP:
                raise TooLarge("the schema refers to itself without end")
            return self._any(self._resolved(schema))
        finally:
            self._depth -= 1

    def _any(self, schema: Mapping[str, Any]) -> Any:
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return self._one_of(schema["enum"])
        kind = self._kind(schema)
        ways: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
            "object": self._object, "array": self._array, "string": self._string, "integer": self._integer,
            "number": self._number, "boolean": lambda _: self._rng.random() < 0.5, "null": lambda _: None,
        }  # fmt: skip
        return ways[kind](schema) if kind in ways else None

    def _kind(self, schema: Mapping[str, Any]) -> str:
        kinds = schema.get("type")
        if isinstance(kinds, list):
            solid = [kind for kind in kinds if kind != "null"] or kinds
            return str(self._rng.choice(kinds if self._rng.random() < 0.2 else solid))
        if isinstance(kinds, str):
            return kinds
        for kind, keys in (("object", OBJECT_KEYS), ("array", ARRAY_KEYS), ("string", STRING_KEYS)):
            if any(key in schema for key in keys):
                return kind
        return "number" if any(key in schema for key in NUMBER_KEYS) else self._rng.choice(ANYTHING)

    def _resolved(self, schema: Any) -> Mapping[str, Any]:
        """``schema`` with references, ``allOf`` and one branch of ``anyOf`` and ``oneOf`` put into it."""
        if not isinstance(schema, dict):
            return {}
        for _ in range(TOO_DEEP):
            if isinstance(schema.get("$ref"), str):
                schema = merged(self._at(schema["$ref"]), _without(schema, "$ref"))
            elif schema.get("allOf"):
                rest = _without(schema, "allOf")
                for part in schema["allOf"]:
                    rest = merged(rest, self._resolved(part))
                schema = rest
            elif schema.get("anyOf") or schema.get("oneOf"):
                name = "anyOf" if schema.get("anyOf") else "oneOf"
                schema = merged(_without(schema, name), self._resolved(self._branch(schema[name])))
            else:
                return schema  # type: ignore[no-any-return]
        raise TooLarge("the schema refers to itself without end")

    def _branch(self, branches: Sequence[Any]) -> Any:
        """One branch; deep down one that ends, which the simplest is likely to do."""
        if self._depth >= DEEP or (self._is_small and self._rng.random() < 0.7):
            return min(branches, key=lambda branch: len(str(branch)))
        solid = [branch for branch in branches if not (isinstance(branch, dict) and branch.get("type") == "null")]
        return self._rng.choice(solid if solid and self._rng.random() < 0.8 else branches)

    def _at(self, reference: str) -> Any:
        if not reference.startswith("#"):
            raise TooLarge(f"the reference {reference!r} leads out of the schema")
        place = self._root
        for step in reference[1:].strip("/").split("/"):
            name = step.replace("~1", "/").replace("~0", "~")
            if not name:
                continue
            try:
                place = place[int(name)] if isinstance(place, list) else place[name]
            except (KeyError, IndexError, ValueError, TypeError):
                raise TooLarge(f"the reference {reference!r} leads nowhere") from None
        return place

    def _one_of(self, values: Sequence[Any]) -> Any:
        said = [one for one in values if isinstance(one, str) and one and one.lower() in self._hints.text]
        return self._rng.choice(said or list(values))

    def _object(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        properties, required = schema.get("properties") or {}, list(schema.get("required") or [])
        for name in [name for name in schema.get("dependentRequired") or {} if name in required]:
            required += schema["dependentRequired"][name]
        chosen = [name for name in properties if name in required or self._wants_more()]
        chosen += [name for name in required if name not in chosen]
        least, most = schema.get("minProperties", 0), schema.get("maxProperties", math.inf)
        _check_size(least, MAX_ITEMS, "minProperties")
        chosen += [name for name in properties if name not in chosen][: max(0, int(least) - len(chosen))]
        while len(chosen) > most and any(name not in required for name in chosen):
            chosen.remove(next(name for name in reversed(chosen) if name not in required))
        drawn = {name: self.value(properties.get(name, self._schema_of_other(schema, name))) for name in chosen}
        for _ in range(MAX_ITEMS):
            if len(drawn) >= least:
                break
            name = self._new_name(schema)
            drawn.setdefault(name, self.value(self._schema_of_other(schema, name)))
        return drawn

    def _wants_more(self) -> bool:
        return not self._is_small and self._depth < DEEP and self._rng.random() < 0.6

    def _new_name(self, schema: Mapping[str, Any]) -> str:
        patterns = list(schema.get("patternProperties") or {})
        if patterns and schema.get("additionalProperties") is False:
            return self._matching(self._rng.choice(patterns))
        names = schema.get("propertyNames")
        return str(self.value({"type": "string", **names})) if isinstance(names, dict) else words(self._rng, 1)

    @staticmethod
    def _schema_of_other(schema: Mapping[str, Any], name: str) -> Any:
        """What holds for a property that ``properties`` does not have."""
        for pattern, one in (schema.get("patternProperties") or {}).items():
            if re.search(pattern, name):
                return one
        return schema.get("additionalProperties", {})

    def _array(self, schema: Mapping[str, Any]) -> list[Any]:
        first, rest = list(schema.get("prefixItems") or []), schema.get("items", {})
        if isinstance(rest, list):  # as before draft 2020-12
            first, rest = rest, schema.get("additionalItems", {})
        contains = schema.get("contains")
        fewest = 0 if contains is None else schema.get("minContains", 1)
        least = max(int(schema.get("minItems", 0)), fewest)
        _check_size(least, MAX_ITEMS, "minItems")
        most = min(schema.get("maxItems", math.inf), len(first) if rest is False else math.inf)
        wanted = least if self._is_small or self._depth >= DEEP else max(least, self._rng.randint(1, 3))
        count = int(min(wanted, most))
        items: list[Any] = []
        for _ in range(count * 20):
            if len(items) >= count:
                break
            at = len(items)
            one = self.value(first[at] if at < len(first) else contains if at < fewest else rest)
            if not (schema.get("uniqueItems") and one in items):
                items.append(one)
        return items

    def _string(self, schema: Mapping[str, Any]) -> str:
        least, most = int(schema.get("minLength", 0)), schema.get("maxLength", math.inf)
        _check_size(least, MAX_CHARACTERS, "minLength")
        if isinstance(schema.get("pattern"), str):
            text = self._matching(schema["pattern"])
        elif schema.get("format") in FORMATS:
            return FORMATS[schema["format"]](self._rng)
        else:
            text = words(self._rng, self._rng.randint(1, 4))
        while len(text) < least:
            text += self._matching(schema["pattern"]) if "pattern" in schema else " " + words(self._rng, 2)
        return text if len(text) <= most else text[: int(most)]

    def _matching(self, pattern: str) -> str:
        return PatternSampler(self._rng, MAX_CHARACTERS).text(pattern)

    def _integer(self, schema: Mapping[str, Any]) -> int:
        drawn = self._number({**schema, "multipleOf": schema.get("multipleOf", 1)})
        return int(drawn) if float(drawn).is_integer() else math.ceil(drawn)

    def _number(self, schema: Mapping[str, Any]) -> float:
        low, high = _bounds(schema)
        step = schema.get("multipleOf")
        fitting = [number for number in self._hints.numbers if low <= number <= high and _is_multiple(number, step)]
        if fitting:
            return _plain(self._rng.choice(fitting))
        if low < -LARGE:
            low = max(low, min(0.0, high - 100.0))
        if high > LARGE:
            high = min(high, max(100.0, low + 100.0))
        if step:
            if not math.isfinite(low / step) or not math.isfinite(high / step):
                raise TooLarge("the numbers that the schema allows are too large")
            first, last = math.ceil(low / step), math.floor(high / step)
            return _plain(self._rng.randint(first, max(first, last)) * step)
        drawn = self._rng.uniform(low, high)
        if not math.isfinite(drawn):
            raise TooLarge("the numbers that the schema allows are too large")
        rounded = round(drawn, 2)
        return rounded if low <= rounded <= high else drawn


def merged(one: Any, other: Any) -> dict[str, Any]:
    """Both schemas in one, as far as that can be said in one; where they disagree, the narrower or the second."""
    if not isinstance(one, dict) or not isinstance(other, dict):
        return dict(one) if isinstance(one, dict) else dict(other) if isinstance(other, dict) else {}
    both = {**one, **other}
    for name in ("properties", "patternProperties"):
        if name in one and name in other:
            shared = {key: merged(one[name][key], other[name][key]) for key in one[name].keys() & other[name].keys()}
            both[name] = {**one[name], **other[name], **shared}
    if "required" in one and "required" in other:
        both["required"] = list(dict.fromkeys([*one["required"], *other["required"]]))
    if "enum" in one and "enum" in other:
        both["enum"] = [value for value in one["enum"] if value in other["enum"]]
    for name in ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"):
        if name in one and name in other:
            both[name] = max(one[name], other[name])
    for name in ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"):
        if name in one and name in other:
            both[name] = min(one[name], other[name])
    return both


def _without(schema: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key != name}


def _check_size(size: float, most: int, name: str) -> None:
    if size > most:
        raise TooLarge(f"`{name}` {size} is more than an answer can hold ({most})")


def _bounds(schema: Mapping[str, Any]) -> tuple[float, float]:
    low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    step = schema.get("multipleOf") or 1e-6
    if isinstance(above, int | float) and not isinstance(above, bool) and above >= low:
        low = above + step if above == math.floor(above / step) * step else above
    if isinstance(below, int | float) and not isinstance(below, bool) and below <= high:
        high = below - step if below == math.floor(below / step) * step else below
    return low, high


def _is_multiple(number: float, step: float | None) -> bool:
    return not step or (number / step).is_integer()


def _plain(number: float) -> float:
    """A whole number without its point, so that JSON has it as one."""
    return int(number) if isinstance(number, float) and number.is_integer() else number
