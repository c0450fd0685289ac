"""Which tools a simulated model calls, and with what: arguments that satisfy each function's schema."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass

from simserve.server.answers.json_values import Hints
from simserve.server.answers.schemas import value_for
from simserve.server.tools import Function


@dataclass(frozen=True)
class Call:
    """One call; ``arguments`` is JSON."""

    name: str
    arguments: str


def calls_for(functions: Sequence[Function], key: str, asked: str, *, parallel: bool) -> list[Call]:
    """The calls that answer ``asked``: each function that it names, else one of them, drawn from ``key``.

    Without ``parallel`` there is one call. Raises :class:`simserve.server.errors.ApiError` (400) for a schema that
    nothing satisfies.
    """
    chosen = [function for function in functions if function.name.lower() in asked.lower()]
    chosen = chosen or [random.Random(f"{key}|tool").choice(functions)]
    return [_call(function, f"{key}|{at}", asked) for at, function in enumerate(chosen if parallel else chosen[:1])]


def _call(function: Function, key: str, asked: str) -> Call:
    param = f"tools.{function.name}.parameters"
    arguments = value_for(function.schema_of_arguments(), key, Hints.of(asked), param)
    return Call(function.name, json.dumps(arguments, ensure_ascii=False))
