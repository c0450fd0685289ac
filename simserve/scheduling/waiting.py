"""Who is next in line: first come first served, or by a key."""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, Protocol

from simserve.scheduling.request import Request


class WaitingQueue(Protocol):
    """Requests that are not running. ``peek`` and ``pop`` want at least one."""

    def push(self, request: Request) -> None:
        """A new request."""
        ...

    def push_front(self, request: Request) -> None:
        """A preempted request, which goes before those that have not run yet if the order allows."""
        ...

    def peek(self) -> Request: ...

    def pop(self) -> Request: ...

    def remove(self, request: Request) -> None: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Request]: ...


class FcfsQueue(deque[Request]):
    """First come, first served; preempted requests first. A deque as it is: it is asked at every step."""

    push = deque.append
    push_front = deque.appendleft

    def pop(self) -> Request:  # type: ignore[override]
        return self.popleft()

    def peek(self) -> Request:
        return self[0]


class KeyedQueue:
    """Smallest ``key(request)`` first; equal keys in order of coming."""

    def __init__(self, key: Callable[[Request], Any]) -> None:
        self._key = key
        self._numbers = count()
        self._entries: list[tuple[Any, int, Request]] = []

    def push(self, request: Request) -> None:
        insort(self._entries, (self._key(request), next(self._numbers), request))

    push_front = push

    def peek(self) -> Request:
        return self._entries[0][2]

    def pop(self) -> Request:
        return self._entries.pop(0)[2]

    def remove(self, request: Request) -> None:
        index = next(index for index, entry in enumerate(self._entries) if entry[2] is request)
        del self._entries[index]

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Request]:
        return (entry[2] for entry in self._entries)
