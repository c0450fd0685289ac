"""Responses that go on without the request that asked for them: begun, looked up, cancelled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from simserve.server.limits import Drain
from simserve.server.responses_api.store import Store

log = logging.getLogger("simserve.server")

Json = dict[str, Any]

Begun = Callable[[Json], None]
"""Is told the response as it is when the engine has it: from then on its client need not wait."""


class Background:
    """The responses that this process works on; ``drain`` waits for them as for requests."""

    def __init__(self, store: Store, drain: Drain) -> None:
        self._store, self._drain = store, drain
        self._running: dict[str, asyncio.Task[None]] = {}
        store.on_cancel.append(self._cancel)

    async def begin(self, number: str, work: Callable[[Begun], Coroutine[Any, Any, None]]) -> Json:
        """Have ``work`` done; returns what it says when it has begun, or raises what it raises before."""
        begun: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        task = self._running[number] = asyncio.create_task(self._do(number, work(begun.set_result)))

        def ended(task: asyncio.Task[None]) -> None:
            if self._running.get(number) is task:
                del self._running[number]
            if begun.done() and not task.cancelled() and task.exception():
                log.error("a response in the background was lost", exc_info=task.exception())

        task.add_done_callback(ended)
        try:
            await asyncio.wait((begun, task), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:  # the client is gone before it knows the response's id
            task.cancel()
            raise
        if not begun.done():
            await task
        return begun.result()

    async def _do(self, number: str, work: Awaitable[None]) -> None:
        self._store.work(number, begins=True)
        try:
            with self._drain.inside_now():
                await work
        finally:
            self._store.work(number, begins=False)

    def _cancel(self, number: str) -> None:
        task = self._running.get(number)
        if task is not None:
            task.cancel()
