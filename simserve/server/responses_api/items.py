"""Items of a response's input: what references to earlier items mean, and how the input is told again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from simserve.server.errors import ApiError
from simserve.server.responses_api.ids import item_id

Json = dict[str, Any]

MAX_PAGE = 100
PAGE = 20
KINDS = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}
"""Types of items, and how their ids begin."""


def is_reference(one: Json) -> bool:
    """Whether the item only says which earlier one is meant."""
    return one.get("type") == "item_reference"


def referred(one: Json, where: str) -> str:
    """The id of the item that is meant; raises :class:`ApiError` (400) where there is none."""
    name = one.get("id")
    if not isinstance(name, str):
        raise ApiError("An `item_reference` needs the `id` of an item.", param=where)
    return name


def told_input(number: str, given: str | Sequence[Json]) -> list[Json]:
    """The input as items with ids of their own; ``number`` is the response's."""
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    return [_told(one, item_id(KINDS[one.get("type") or "message"], number, f"i{at}")) for at, one in enumerate(given)]


def _told(one: Json, new: str) -> Json:
    kind, name = one.get("type") or "message", one.get("id")
    item = {**one, "type": kind, "id": name if name and isinstance(name, str) else new}
    if kind == "message":
        item["content"] = _told_content(one.get("content"), by_model=one.get("role") == "assistant")
    return item if kind == "reasoning" else {**item, "status": one.get("status") or "completed"}


def _told_content(content: Any, *, by_model: bool) -> list[Json]:
    parts = content if isinstance(content, list) else [{"text": content or ""}]
    return [_told_part(part, by_model=by_model) for part in parts]


def _told_part(part: Mapping[str, Any], *, by_model: bool) -> Json:
    if part.get("type") == "input_image":
        return {"detail": "auto", **part}
    if part.get("type", "text") not in ("text", "input_text", "output_text"):
        return dict(part)
    if not by_model:
        return {"type": "input_text", "text": part["text"]}
    return {"annotations": [], "logprobs": [], **part, "type": "output_text"}


def page(items: Sequence[Json], query: Mapping[str, str]) -> Json:
    """A list of ``items`` as a client's ``limit``, ``order`` and ``after`` want it, the latest first.

    Raises :class:`ApiError` (400) for anything else in them.
    """
    order, limit, after = query.get("order", "desc"), query.get("limit", str(PAGE)), query.get("after")
    if order not in ("asc", "desc"):
        raise ApiError("Invalid `order`: give asc or desc.", param="order")
    if not (limit.isascii() and limit.isdecimal() and 1 <= int(limit[:9]) <= MAX_PAGE):
        raise ApiError(f"Invalid `limit`: give a whole number from 1 to {MAX_PAGE}.", param="limit")
    ordered = list(items) if order == "asc" else list(reversed(items))
    ids = [item["id"] for item in ordered]
    if after is not None and after not in ids:
        raise ApiError("Invalid `after`: there is no such item in this response's input.", param="after")
    first = 0 if after is None else ids.index(after) + 1
    data = ordered[first : first + int(limit)]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": first + len(data) < len(ordered),
    }
