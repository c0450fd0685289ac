"""One worker: HTTP, keys, validation, tokenizing and event streams, for engines in the parent.

Run as ``python -m simserve.server.workers.worker ENGINES OPERATOR``, two sockets, with the settings, pickled, on
standard input: there are keys in them, which belong neither into the arguments nor into the environment of a process.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import signal
import sys
from collections.abc import Sequence

from simserve.errors import SimServeError
from simserve.server.limits import Drain
from simserve.server.logs import set_up_logging
from simserve.server.models import available_models
from simserve.server.run import listening, loop_factory, settle_process
from simserve.server.secrecy import Secrets
from simserve.server.settings import Settings
from simserve.server.workers.relay import Relay
from simserve.server.workers.remote import Link, RemoteFailures, RemoteModels, RemoteRates
from simserve.server.workers.responses import RemoteStore

log = logging.getLogger("simserve.server")

OK, PARENT_GONE, BAD_INPUT = 0, 1, 2


def main() -> int:
    """Work until the parent says that it is enough, or is gone."""
    settings: Settings = pickle.load(sys.stdin.buffer)
    set_up_logging(settings.logging, Secrets(settings.auth), rotate=False)
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            return runner.run(_work(sys.argv[1], sys.argv[2], settings))
    except SimServeError as error:
        log.error("%s", error)
        return BAD_INPUT


async def _work(engines: str, operator: str, settings: Settings) -> int:
    loop = asyncio.get_running_loop()
    link = Link()
    loop.add_signal_handler(signal.SIGTERM, link.drain, settings.server.shutdown_grace)
    try:
        await loop.create_unix_connection(lambda: link.channel, engines)
    except OSError:
        return PARENT_GONE
    models, drain = RemoteModels(available_models(settings), link), Drain()
    rates, failures = RemoteRates(link), RemoteFailures(settings.failures, link)
    server, relay = settings.server, Relay(operator, drain)
    link.http, store = relay.http, RemoteStore(relay.session, link)
    preload: Sequence[str | None] | None = settings.models.preload
    for name in [None] if preload is None else preload:
        async with models.use(name):
            pass  # now its tokenizer is here, too
    async with listening(models, server.host, server.port, settings, drain, rates, failures, relay, store, shared=True):
        settle_process()
        link.channel.send({"op": "ready"})
        await asyncio.wait((link.draining, link.stopped), return_when=asyncio.FIRST_COMPLETED)
        if link.draining.done():
            drained = asyncio.create_task(drain.wait(link.draining.result()))
            await asyncio.wait((drained, link.stopped), return_when=asyncio.FIRST_COMPLETED)
            drained.cancel()
            if drain.inside:
                log.warning("%d requests did not end in time and are cut off", drain.inside)
    await relay.disconnect()
    return PARENT_GONE if link.stopped.done() and link.stopped.result() else OK


if __name__ == "__main__":
    sys.exit(main())
