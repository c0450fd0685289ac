"""How responses and their items are called: an item's id says whose it is, so that it can be found again."""

from __future__ import annotations


def response_id(number: str) -> str:
    """The id of the response with this number."""
    return f"resp_{number}"


def item_id(kind: str, number: str, at: int | str) -> str:
    """The id of an item of that response; ``kind`` and ``at`` tell its items apart."""
    return f"{kind}_{number}_{at}"


def response_of(item: str) -> str:
    """The id of the response that :func:`item_id` was told of; for other ids, of none that there is."""
    return response_id(item.partition("_")[2].rpartition("_")[0])
