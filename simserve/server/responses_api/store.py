"""The latest responses, for those who look one up, go on from it or cancel it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from simserve.server.errors import ApiError
from simserve.server.responses_api.ids import response_of

Json = dict[str, Any]

IN_PROGRESS = "in_progress"
"""The status of a response that somebody works on."""

MAX_STORED = 1_000
MAX_STORED_BYTES = 64 * 2**20

INLINE_ENTRY_BYTES = 256 * 1024
"""Larger ones are read and written in a thread, so that they hold up no streams."""


class Store(Protocol):
    """Keeps entries by the ids of responses. ``on_cancel`` are told the id of each response that is to be cancelled."""

    on_cancel: list[Callable[[str], None]]

    async def put(self, number: str, entry: bytes) -> None:
        """Keep an entry, in place of the one before; the oldest are forgotten where there are too many."""
        ...

    async def get(self, number: str) -> bytes | None:
        """The entry, None if there is none, or not any more."""
        ...

    async def remove(self, number: str) -> bool:
        """Forget the entry; whether there was one."""
        ...

    async def cancel(self, number: str) -> None:
        """Have whoever works on the response stop it."""
        ...

    def work(self, number: str, *, begins: bool) -> None:
        """This process begins to work on a response, or does not any more: one that dies meanwhile has lost it."""
        ...


class KeptHere:
    """A :class:`Store` in the memory of this process."""

    def __init__(self) -> None:
        self.on_cancel: list[Callable[[str], None]] = []
        self._by_id: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0

    async def put(self, number: str, entry: bytes) -> None:
        await self.remove(number)
        self._by_id[number] = entry
        self._bytes += len(entry)
        while len(self._by_id) > MAX_STORED or self._bytes > MAX_STORED_BYTES:
            _, oldest = self._by_id.popitem(last=False)
            self._bytes -= len(oldest)

    async def get(self, number: str) -> bytes | None:
        return self._by_id.get(number)

    async def remove(self, number: str) -> bool:
        entry = self._by_id.pop(number, None)
        self._bytes -= len(entry or b"")
        return entry is not None

    async def cancel(self, number: str) -> None:
        for told in self.on_cancel:
            told(number)

    def work(self, number: str, *, begins: bool) -> None:
        """If this process dies, so does the store."""

    async def lose(self, number: str) -> None:
        """Whoever worked on the response is dead: it has failed."""
        entry = self._by_id.get(number)
        if entry is None:
            return
        stored = Stored(**await asyncio.to_thread(orjson.loads, entry))
        if stored.response["status"] == IN_PROGRESS:
            why = {"code": "server_error", "message": "The process that worked on this response has died; ask again."}
            stored.response.update(status="failed", error=why)
            await self.put(number, await stored.written())


@dataclass(frozen=True)
class Stored:
    """A response as it is now, the items that were asked, and the conversation up to its answer, once that is complete.

    The conversation is messages of a chat, earlier responses' too.
    """

    response: Json
    asked: list[Json]
    messages: list[Json]

    async def written(self) -> bytes:
        """The entry for a store."""
        if _size(self.messages) + _size(self.asked) > INLINE_ENTRY_BYTES:
            return await asyncio.to_thread(self._dumped)
        return self._dumped()

    def _dumped(self) -> bytes:
        return orjson.dumps({"response": self.response, "asked": self.asked, "messages": self.messages})


async def item_in(store: Store, name: str, param: str) -> Json:
    """What was said under this id; raises :class:`ApiError` (404) if that is not known, or not any more."""
    entry = await store.get(response_of(name))
    stored = None if entry is None else await _read(entry)
    items: list[Json] = [] if stored is None else [*stored.response["output"], *stored.asked]
    for item in items:
        if item["id"] == name:
            return item
    message = f"There is no item {name!r} here; send what it said, or refer to a response that is stored."
    raise ApiError(message, status=404, param=param, code="item_not_found")


async def stored_in(store: Store, number: str, param: str | None = None) -> Stored:
    """What ``store`` has of a response; raises :class:`ApiError` (404) for one that is not there, or not any more."""
    entry = await store.get(number)
    if entry is None:
        raise not_found(number, param)
    return await _read(entry)


async def _read(entry: bytes) -> Stored:
    read = await asyncio.to_thread(orjson.loads, entry) if len(entry) > INLINE_ENTRY_BYTES else orjson.loads(entry)
    return Stored(**read)


def not_found(number: str, param: str | None = None) -> ApiError:
    """404 for a response that is not kept."""
    message = f"There is no response {number!r} here; this server forgets old ones, and all when it ends."
    return ApiError(message, status=404, param=param, code="response_not_found")


def _size(value: object) -> int:
    """About how many bytes ``value`` has as JSON."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        value = list(value.values())
    return 10 + sum(map(_size, value)) if isinstance(value, list) else 10
