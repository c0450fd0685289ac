"""The parent of the workers: it has the engines, keeps the workers alive, and ends everything in order."""

from __future__ import annotations

import asyncio
import logging
import pickle
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from aiohttp import web

from simserve.errors import ConfigError, SimServeError
from simserve.server.auth import warn_if_open
from simserve.server.errors import errors_as_objects
from simserve.server.failures import Failures
from simserve.server.limits import Drain
from simserve.server.models import ModelPool
from simserve.server.operations import Operations
from simserve.server.responses_api.store import MAX_STORED_BYTES
from simserve.server.run import log_when_idle, settle_process, url_of
from simserve.server.settings import Settings
from simserve.server.sockets import bound_sockets
from simserve.server.workers.channel import Message
from simserve.server.workers.host import Host
from simserve.server.workers.responses import StoreRoutes

log = logging.getLogger("simserve.server")

COMMAND = (sys.executable, "-m", "simserve.server.workers.worker")

SHORT_LIFE_S = 3.0
MOST_SHORT_LIVES = 3
"""A worker that ends so soon, so many times in a row, will not do better the next time."""

STOP_S = 5.0
"""How long a worker may take to end once its requests have."""


async def serve_with_workers(
    models: ModelPool, settings: Settings, on_listening: Callable[[str], None], signals: asyncio.Queue[int]
) -> None:
    """Serve with ``settings.server.workers`` processes until a signal comes; see :func:`simserve.server.run.serve`."""
    if not hasattr(socket, "SO_REUSEPORT"):
        raise ConfigError("server.workers above 1 needs a system whose processes can share a port, such as Linux")
    server = settings.server
    for one in bound_sockets(server.host, server.port):  # nobody else may have the port, sharing or not
        one.close()
    reserved = bound_sockets(server.host, server.port, shared=True)
    port = reserved[0].getsockname()[1]
    settings = settings.model_copy(update={"server": server.model_copy(update={"port": port})})
    warn_if_open(settings.auth, server.host)
    host = Host(models, Failures(settings.failures))
    with TemporaryDirectory(prefix="simserve-") as folder:
        engines, operator = Path(folder) / "engines.sock", Path(folder) / "operator.sock"
        try:
            await models.start()
            door = await asyncio.get_running_loop().create_unix_server(host.connection, engines)
            async with _operating(host, settings, operator) as operations:
                workers = _Workers(host, operations, settings, (engines, operator))
                await workers.run(signals, lambda: on_listening(url_of(server.host, port)))
            door.close()
        finally:
            await models.stop()
            for one in reserved:
                one.close()


@asynccontextmanager
async def _operating(host: Host, settings: Settings, path: Path) -> AsyncIterator[Operations]:
    """Answer what workers pass on of those who run the server, and keep their responses."""
    operations = Operations(host.models, Drain(), host.http_counts)
    largest = max(settings.server.max_body_size, MAX_STORED_BYTES)
    app = web.Application(middlewares=[errors_as_objects()], client_max_size=largest)
    app.add_routes([*operations.table(), *StoreRoutes(host.kept).table()])
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0)
    await runner.setup()
    try:
        await web.UnixSite(runner, path).start()
        yield operations
    finally:
        await operations.close()
        await runner.cleanup()


class _Workers:
    """The worker processes, each with a task that starts it again when it dies."""

    def __init__(self, host: Host, operations: Operations, settings: Settings, sockets: Sequence[Path]) -> None:
        self._host = host
        self._operations = operations
        self._settings = settings
        self._sockets = sockets
        self._ending = False
        self._hopeless: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._processes: dict[int, asyncio.subprocess.Process] = {}

    async def run(self, signals: asyncio.Queue[int], on_ready: Callable[[], None]) -> None:
        """Work until a signal comes; raises :class:`SimServeError` if workers cannot be kept alive."""
        count = self._settings.server.workers
        keepers = [asyncio.create_task(self._keep(number)) for number in range(1, count + 1)]
        chores: list[asyncio.Task[None]] = []
        try:
            if not await self._all_ready(count, signals):
                return
            settle_process()
            on_ready()
            chores.append(asyncio.create_task(log_when_idle(self._host.models)))
            first = asyncio.create_task(signals.get())
            await asyncio.wait((first, self._hopeless), return_when=asyncio.FIRST_COMPLETED)
            if self._hopeless.done():
                first.cancel()
                self._hopeless.result()
            log.info("Shutting down")
            await self._end(signals, drain=first.result() == signal.SIGTERM)
        finally:
            for task in (*chores, *keepers):
                task.cancel()
            await self._kill_the_rest()
            await asyncio.gather(*chores, *keepers, return_exceptions=True)

    async def _all_ready(self, count: int, signals: asyncio.Queue[int]) -> bool:
        """Wait until all listen; False if a signal comes first."""

        async def ready() -> None:
            async with self._host.changed:
                await self._host.changed.wait_for(lambda: self._host.ready >= count)

        waiting, stopped = asyncio.create_task(ready()), asyncio.create_task(signals.get())
        await asyncio.wait((waiting, stopped, self._hopeless), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if stopped.done():
            return False
        stopped.cancel()
        if self._hopeless.done():
            self._hopeless.result()
        return True

    async def _keep(self, number: int) -> None:
        short_lives = 0
        while not self._ending:
            start_s = time.monotonic()
            process = await self._started(number)
            status = await process.wait()
            del self._processes[number]
            if self._ending:
                return
            short_lives = short_lives + 1 if time.monotonic() - start_s < SHORT_LIFE_S else 0
            log.error("Worker %d ended with status %d; starting another one", number, status)
            if short_lives >= MOST_SHORT_LIVES and not self._hopeless.done():
                self._hopeless.set_exception(
                    SimServeError(f"worker {number} ends as soon as it is started (status {status}); its log says why")
                )
                return

    async def _started(self, number: int) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            *map(str, self._sockets),
            stdin=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the parent, which says what comes of it
        )
        self._processes[number] = process
        assert process.stdin is not None
        with suppress(ConnectionError):  # it has died already, which its keeper will notice
            process.stdin.write(pickle.dumps(self._settings))
            await process.stdin.drain()
            process.stdin.close()
        return process

    async def _end(self, signals: asyncio.Queue[int], *, drain: bool) -> None:
        """Have all workers end: with ``drain``, once their requests have, or their grace is over, or a signal comes."""
        self._ending = True
        await self._operations.close()
        grace_s = self._settings.server.shutdown_grace if drain else 0.0
        message: Message = {"op": "drain", "grace_s": grace_s} if drain else {"op": "stop"}
        self._host.say(message)
        gone = asyncio.create_task(self._all_gone())
        second = asyncio.create_task(signals.get())
        await asyncio.wait((gone, second), timeout=grace_s + STOP_S, return_when=asyncio.FIRST_COMPLETED)
        if not gone.done():
            self._host.say({"op": "stop"})
            await asyncio.wait((gone,), timeout=STOP_S)
        for task in (gone, second):
            task.cancel()

    async def _all_gone(self) -> None:
        await asyncio.gather(*(process.wait() for process in self._processes.values()))

    async def _kill_the_rest(self) -> None:
        for process in list(self._processes.values()):
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
