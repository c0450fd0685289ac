"""Responses that were given, for clients that look them up or go on from them: the latest, in this process."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from simserve.server.errors import ApiError

Json = dict[str, Any]

MAX_STORED = 1_000
MAX_STORED_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Stored:
    """A response, the items that were asked, and the messages of the conversation up to its end."""

    body: bytes
    asked: Sequence[Json]
    messages: Sequence[Json]

    @property
    def size_bytes(self) -> int:
        """What it takes up, about."""
        return len(self.body) + len(orjson.dumps([*self.asked, *self.messages]))

    def items(self) -> Iterator[Json]:
        """All that was said in it, by anybody."""
        yield from orjson.loads(self.body)["output"]
        yield from self.asked


class Store:
    """The latest responses, by their ids, and their items by theirs."""

    def __init__(self) -> None:
        self._by_id: OrderedDict[str, tuple[Stored, int]] = OrderedDict()
        self._of_item: dict[str, str] = {}
        self._bytes = 0

    def put(self, number: str, stored: Stored) -> None:
        """Remember a response; the oldest are forgotten where there are too many."""
        if number in self._by_id:
            self.remove(number)
        size_bytes = stored.size_bytes
        self._by_id[number] = stored, size_bytes
        self._bytes += size_bytes
        for item in stored.items():
            self._of_item.setdefault(item["id"], number)
        while len(self._by_id) > MAX_STORED or self._bytes > MAX_STORED_BYTES:
            self.remove(next(iter(self._by_id)))

    def get(self, number: str, param: str | None = None) -> Stored:
        """Raises :class:`ApiError` (404) for one that is not there, or not any more."""
        if number not in self._by_id:
            message = f"There is no response {number!r} here; this server forgets old ones, and all when it ends."
            raise ApiError(message, status=404, param=param, code="response_not_found")
        return self._by_id[number][0]

    def item(self, name: str, param: str) -> Json:
        """What was said under this id; raises like :meth:`get`."""
        number = self._of_item.get(name)
        if number is None:
            message = f"There is no item {name!r} here; send what it said, or a response that is stored."
            raise ApiError(message, status=404, param=param, code="item_not_found")
        return next(item for item in self.get(number).items() if item["id"] == name)

    def remove(self, number: str) -> None:
        """As :meth:`get`."""
        for item in self.get(number).items():
            if self._of_item.get(item["id"]) == number:
                del self._of_item[item["id"]]
        self._bytes -= self._by_id.pop(number)[1]
