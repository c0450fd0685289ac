"""Listening: the event loop, the port, signals and the idle log; ``simserve serve`` ends up here."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from simserve.engines.base import Engine
from simserve.errors import ConfigError
from simserve.server.app import build_app
from simserve.server.routes import Service

log = logging.getLogger("simserve.server")

IDLE_CHECK_S = 0.5
IDLE_LOG_EVERY_S = 10.0
SHUTDOWN_GRACE_S = 1.0
BACKLOG = 2048


def serve(service: Service, host: str, port: int, on_listening: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; ``on_listening`` is told the URL once clients can connect.

    Port 0 takes any free port. Raises :class:`ConfigError` if host or port cannot be listened on.
    """
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve_until_signal(service, host, port, on_listening))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # not made for every platform
        return None
    return uvloop.new_event_loop


async def _serve_until_signal(service: Service, host: str, port: int, on_listening: Callable[[str], None]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, stop.set)
    async with listening(service, host, port) as url:
        # What is there now stays: the garbage collector need not look through it again while tokens are due.
        gc.collect()
        gc.freeze()
        on_listening(url)
        idle = asyncio.create_task(log_when_idle(service.engine))
        await stop.wait()
        log.info("Shutting down")
        idle.cancel()
        with suppress(asyncio.CancelledError):
            await idle


@asynccontextmanager
async def listening(service: Service, host: str, port: int) -> AsyncIterator[str]:
    """Serve inside the ``async with`` block; yields the URL.

    At the end no new client is let in, the engine ends all open streams, and who has not read its last bytes after
    a second of grace is cut off.
    """
    runner = web.AppRunner(
        build_app(service),
        access_log=None,
        logger=_http_log(),
        handler_cancellation=True,
        shutdown_timeout=SHUTDOWN_GRACE_S,
    )
    await runner.setup()
    site = web.TCPSite(runner, host, port, backlog=BACKLOG)
    await service.engine.start()
    try:
        await _bind(site, host, port)
        yield _url(host, site.port)
        await site.stop()
    finally:
        await service.engine.stop()
        await runner.cleanup()


def _http_log() -> logging.Logger:
    """aiohttp's own log, without a traceback for every client that does not speak HTTP or has hung up."""
    logger = logging.getLogger("simserve.http")
    logger.addFilter(_is_the_servers_fault)
    return logger


def _is_the_servers_fault(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, (HttpProcessingError, ConnectionError))


async def _bind(site: web.TCPSite, host: str, port: int) -> None:
    try:
        await site.start()
    except socket.gaierror:
        raise ConfigError(f"{host} is not an address of this machine; give another --host") from None
    except OSError as error:
        raise _cannot_listen(error, host, port) from None
    except OverflowError:
        raise ConfigError(f"{port} is not a port; give --port a number from 0 to 65535") from None


def _cannot_listen(error: OSError, host: str, port: int) -> ConfigError:
    if error.errno == errno.EADDRINUSE:
        return ConfigError(f"port {port} is already in use; stop what listens there or give another --port")
    if error.errno == errno.EACCES:
        return ConfigError(f"port {port} needs more rights than you have; give a --port above 1023")
    reason = os.strerror(error.errno or 0)
    return ConfigError(f"cannot listen on {host}:{port} ({reason}); give another --host or --port")


def _url(host: str, port: int) -> str:
    name = "localhost" if host in ("0.0.0.0", "::", "") else host
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


async def log_when_idle(
    engine: Engine, check_every_s: float = IDLE_CHECK_S, log_every_s: float = IDLE_LOG_EVERY_S
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
