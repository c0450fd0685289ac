"""One process of a run: opens its connections, says that it is ready, sends its share, and reads what came back."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any

from simserve.bench.backends import find_backend
from simserve.bench.load.counters import Counters
from simserve.bench.load.driver import Driver, Load
from simserve.bench.load.health import Health, Pulse
from simserve.bench.measure.outcome import Outcome, outcome_of
from simserve.bench.wire.address import Address
from simserve.bench.wire.encode import Request
from simserve.bench.wire.exchange import Spool
from simserve.bench.wire.pool import Pool
from simserve.errors import SimServeError
from simserve.resources import allow_many_connections

if TYPE_CHECKING:
    from multiprocessing.connection import Connection as Pipe

COUNT_EVERY_S = 0.1
WRITE_BUFFER_BYTES = 64 * 1024


@dataclass(frozen=True)
class Job:
    """All that a process needs to do its part. ``connections`` are opened before the start, ``spare`` kept ready."""

    address: Address
    backend: str
    load: Load
    connections: int
    spare: int = 0
    limit: int | None = None
    insecure: bool = False
    keep_text: bool = False
    warmups: Sequence[Request] = field(default_factory=list)
    warmup_concurrency: int | None = None


@dataclass(frozen=True)
class Report:
    """What a process has to say when it is done."""

    outcomes: list[Outcome]
    health: Health


def work(job: Job, row: int, memory: Any, pipe: Pipe) -> None:
    """The main function of a process that carries out ``job``."""
    run_child(lambda counters: _work(job, row, counters, pipe), memory, pipe)


def run_child(main: Callable[[Counters], Coroutine[Any, Any, Any]], memory: Any, pipe: Pipe) -> None:
    """Run ``main`` in an event loop and tell the parent ("ready", None), then ("done" | "error", its result).

    The other way come ("start", perf_counter seconds), "stop" (send nothing more) and "abort" (wait for nothing).
    """
    # Ctrl-C goes to the whole group of processes; the parent decides what it means and says so.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    rows = len(memory) // Counters.width()
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            report = runner.run(main(Counters(rows, memory)))
        os.set_blocking(pipe.fileno(), True)  # watching it, libuv made it otherwise
        pipe.send(("done", report))
    except SimServeError as error:
        os.set_blocking(pipe.fileno(), True)
        pipe.send(("error", str(error)))
    except (BrokenPipeError, EOFError):  # the parent is gone: nobody wants to know
        pass


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where there is one."""
    try:
        import uvloop
    except ImportError:  # not made for every platform
        return None
    return uvloop.new_event_loop


async def _work(job: Job, row: int, counters: Counters, pipe: Pipe) -> Report:
    allow_many_connections()
    health = Health()
    pool = Pool(job.address, limit=job.limit, spare=job.spare, insecure=job.insecure)
    with tempfile.TemporaryFile(buffering=WRITE_BUFFER_BYTES) as file:
        spool = Spool(file)
        try:
            await pool.open(job.connections)
            if job.warmups:
                await warm_up(job, pool)
            driver = Driver(job.load, pool, spool.write)

            def beat() -> None:
                driver.check_timeouts()
                driver.count_begun()
                _show(counters, row, driver, health)

            with no_garbage_collection():
                start_s = await meet(pipe)
                await asyncio.sleep(max(start_s - perf_counter(), 0.0))
                async with on_duty(pipe, health, driver.stop, driver.abort, beat):
                    await driver.run(start_s)
        finally:
            pool.close()
        health.connections_opened = pool.opened
        health.stale_connections = driver.stale
        return Report(read_outcomes(spool, job.backend, keep_text=job.keep_text), health)


async def warm_up(job: Job, pool: Pool) -> None:
    """Send the warm-up requests under the concurrency limit; what they answer is forgotten."""
    slots = None if job.warmup_concurrency is None else [0.0] * job.warmup_concurrency
    load = Load(job.warmups, [0.0] * len(job.warmups), slots, id_prefix=job.load.id_prefix + "warmup-")
    await Driver(load, pool, lambda exchange: None).run(perf_counter())


def read_outcomes(spool: Spool, backend_name: str, *, keep_text: bool) -> list[Outcome]:
    """Every finished exchange as an outcome."""
    backend = find_backend(backend_name)
    return [outcome_of(exchange, backend, keep_text=keep_text) for exchange in spool.read()]


async def meet(pipe: Pipe) -> float:
    """Say that all is ready and wait for the common start."""
    pipe.send(("ready", None))
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    loop.add_reader(pipe.fileno(), told.set)
    await told.wait()
    loop.remove_reader(pipe.fileno())
    message = pipe.recv()
    if message[0] != "start":
        raise SimServeError("stopped before the start")
    return float(message[1])


@asynccontextmanager
async def on_duty(
    pipe: Pipe, health: Health, stop: Callable[[], None], abort: Callable[[], None], beat: Callable[[], None]
) -> AsyncIterator[None]:
    """While inside, obey the parent and call ``beat`` ten times a second; at the end ``health`` is settled."""
    loop = asyncio.get_running_loop()
    loop.add_reader(pipe.fileno(), _obey, pipe, stop, abort, loop)
    pulse = Pulse(loop, health)
    watch = loop.create_task(_watch(beat))
    try:
        yield
    finally:
        pulse.stop()
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch
        beat()
        loop.remove_reader(pipe.fileno())


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """A pause of the collector would be measured as one of the server."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def _watch(beat: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(COUNT_EVERY_S)
        beat()


def _obey(pipe: Pipe, stop: Callable[[], None], abort: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
    try:
        message = pipe.recv()
    except EOFError:  # the parent is gone
        loop.remove_reader(pipe.fileno())
        message = ("abort",)
    if message[0] == "stop":
        stop()
    elif message[0] == "abort":
        abort()


def _show(counters: Counters, row: int, driver: Driver, health: Health) -> None:
    lag_s = max(health.loop_lags_s[-20:], default=0.0)
    values = (
        driver.sent, driver.in_flight, driver.done, driver.failed, driver.events, driver.worst_lag_s, lag_s,
        process_time(),
    )  # fmt: skip
    counters.write(row, values, driver.ttft, driver.itl)
