"""Listening: the event loop, the port, signals and the idle log; ``simserve serve`` ends up here."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Protocol

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from simserve.engines.base import EngineStatus
from simserve.resources import allow_many_connections
from simserve.server.app import build_app
from simserve.server.auth import warn_if_open
from simserve.server.failures import Failures
from simserve.server.limits import Counter, Drain
from simserve.server.models import ModelPool, Models
from simserve.server.operations import Operator
from simserve.server.responses_api.store import Store
from simserve.server.service import Service
from simserve.server.settings import Settings
from simserve.server.sockets import bound_sockets

log = logging.getLogger("simserve.server")

IDLE_CHECK_S = 0.5
IDLE_LOG_EVERY_S = 10.0
SHUTDOWN_GRACE_S = 1.0
BACKLOG = 2048
LINGERING_S = 1.0
"""How long the rest of a body that nobody wants is read, so that its sender sees the answer."""
GC_YOUNG_OBJECTS = 50_000
"""Of which so many more must be there than at the last time before the collector looks again; Python's own: 700."""
THREADS_TURN_S = 0.0002
"""How long a thread may keep the interpreter when another one waits for it; Python's own: 5 ms."""
DEFAULTS = Settings()


def serve(models: ModelPool, settings: Settings, on_listening: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; ``on_listening`` is told the URL once clients can connect.

    Port 0 takes any free port. Raises :class:`ConfigError` if host or port cannot be listened on.
    """
    allow_many_connections()  # workers inherit it
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve_until_signal(models, settings, on_listening))


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # not made for every platform
        return None
    return uvloop.new_event_loop


def settle_process() -> None:
    """Have neither the garbage collector nor other threads hold up all streams for long: either was up to 30 ms.

    The collector works seldom. What is there now stays and need not be looked through again; reference counts free
    nearly all that a request leaves behind, so that little is left to collect. A thread that reads a large body gives
    way soon: the event loop lets go of the interpreter at each write, and would wait as long as that to get it back.
    """
    sys.setswitchinterval(THREADS_TURN_S)
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_YOUNG_OBJECTS, *gc.get_threshold()[1:])


async def _serve_until_signal(models: ModelPool, settings: Settings, on_listening: Callable[[str], None]) -> None:
    signals: asyncio.Queue[int] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, signals.put_nowait, signum)
    if settings.server.workers > 1:
        from simserve.server.workers import serve_with_workers

        await serve_with_workers(models, settings, on_listening, signals)
    else:
        await _serve_alone(models, settings, on_listening, signals)


async def _serve_alone(
    models: ModelPool, settings: Settings, on_listening: Callable[[str], None], signals: asyncio.Queue[int]
) -> None:
    """Do HTTP in this process, too."""
    warn_if_open(settings.auth, settings.server.host)
    drain = Drain()
    async with listening(models, settings.server.host, settings.server.port, settings, drain) as url:
        settle_process()
        on_listening(url)
        idle = asyncio.create_task(log_when_idle(models))
        first = await signals.get()
        log.info("Shutting down")
        idle.cancel()
        with suppress(asyncio.CancelledError):
            await idle
        if first == signal.SIGTERM:
            await _let_finish(drain, settings.server.shutdown_grace, signals)


async def _let_finish(drain: Drain, grace_s: float, signals: asyncio.Queue[int]) -> None:
    """Wait for the requests inside, until they have ended, their grace is over, or a second signal comes."""
    drained, second = asyncio.create_task(drain.wait(grace_s)), asyncio.create_task(signals.get())
    await asyncio.wait((drained, second), return_when=asyncio.FIRST_COMPLETED)
    second.cancel()
    drained.cancel()
    if drain.inside:
        log.warning("%d requests did not end in time and are cut off", drain.inside)


@asynccontextmanager
async def listening(
    models: Models | Service,
    host: str,
    port: int,
    settings: Settings = DEFAULTS,
    drain: Drain | None = None,
    counter: Counter | None = None,
    failures: Failures | None = None,
    operator: Operator | None = None,
    store: Store | None = None,
    *,
    shared: bool = False,
) -> AsyncIterator[str]:
    """Serve inside the ``async with`` block; yields the URL. A service stands for a pool of that one model.

    ``counter``, ``failures``, ``operator`` and ``store`` are as in :func:`build_app`; ``shared`` lets other processes
    have the same port.

    At the end, or once ``drain`` waits, no new client is let in. At the end the engines end all open streams, and who
    has not read its last bytes after a second of grace is cut off.
    """
    models = ModelPool.of(models, settings.server.max_waiting_requests) if isinstance(models, Service) else models
    drain = drain or Drain()
    runner = web.AppRunner(
        build_app(models, settings, drain, counter, failures, operator, store),
        access_log=None,
        logger=_http_log(),
        handler_cancellation=True,
        shutdown_timeout=SHUTDOWN_GRACE_S,
        keepalive_timeout=settings.server.keep_alive_timeout,
        lingering_time=LINGERING_S,
    )
    await runner.setup()
    try:
        await models.start()
        sites = [web.SockSite(runner, bound, backlog=BACKLOG) for bound in bound_sockets(host, port, shared=shared)]
        for site in sites:
            await site.start()
            drain.doors.append(site.stop)
        yield url_of(host, runner.addresses[0][1])
        await drain.close()
    finally:
        await models.stop()
        await runner.cleanup()


def _http_log() -> logging.Logger:
    """aiohttp's own log, without a traceback for every client that does not speak HTTP or has hung up."""
    logger = logging.getLogger("simserve.http")
    logger.addFilter(_is_the_servers_fault)
    return logger


def _is_the_servers_fault(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, (HttpProcessingError, ConnectionError))


def url_of(host: str, port: int) -> str:
    name = "localhost" if host in ("0.0.0.0", "::", "") else host
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


class HasStatus(Protocol):
    """An engine, or several."""

    def status(self) -> EngineStatus: ...


async def log_when_idle(
    engine: HasStatus, check_every_s: float = IDLE_CHECK_S, log_every_s: float = IDLE_LOG_EVERY_S
) -> None:
    """Say now and then that nothing is going on: soon after it is so, and not more often than ``log_every_s``."""
    loop = asyncio.get_running_loop()
    quiet_until = 0.0
    while True:
        await asyncio.sleep(check_every_s)
        now = engine.status()
        if now.waiting_requests + now.running_requests == 0 and loop.time() >= quiet_until:
            log.info("[%.3fs] Service is idle, waiting for requests...", now.clock_s)
            quiet_until = loop.time() + log_every_s
