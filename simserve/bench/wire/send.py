"""One request on its own: sent, and read to the end of its answer."""

from __future__ import annotations

import asyncio
from time import perf_counter

from simserve.bench.wire.address import Address
from simserve.bench.wire.connection import Connection
from simserve.bench.wire.encode import Request
from simserve.bench.wire.exchange import Exchange, Finished, finished
from simserve.bench.wire.pool import CannotConnect, Pool


async def send(
    pool: Pool, exchange: Exchange, message: bytes, timeout_s: float, under_way: dict[Exchange, Connection]
) -> None:
    """Send ``message`` over ``pool`` and wait until ``exchange`` is over, one way or another.

    Meanwhile it is in ``under_way``, so that others may give it up.
    """
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()

    def done(connection: Connection, ended: Exchange) -> None:
        under_way.pop(ended, None)
        pool.give_back(connection)
        if not over.done():
            over.set_result(None)

    def launch(connection: Connection) -> None:
        under_way[exchange] = connection
        connection.send(exchange, message, done)

    def refuse(error: CannotConnect) -> None:
        exchange.trouble, exchange.detail = error.trouble, str(error)
        exchange.sent_s = exchange.end_s = perf_counter()
        over.set_result(None)

    def give_up() -> None:
        if exchange in under_way:
            under_way[exchange].give_up("timeout")

    connection = pool.take()
    if connection is not None:
        launch(connection)
    else:
        pool.want(launch, refuse)
    handle = loop.call_later(timeout_s, give_up)
    await over
    handle.cancel()


async def ask_once(
    address: Address, request: Request, request_id: str, timeout_s: float, *, insecure: bool
) -> Finished:
    """All that came back to ``request``, over a connection of its own.

    Raises :class:`simserve.errors.ServerError` if there is no way to the server.
    """
    pool = Pool(address, insecure=insecure)
    try:
        await pool.open(1)
        now = perf_counter()
        exchange = Exchange(request.index, request_id, now, now)
        await send(pool, exchange, request.with_id(request_id), timeout_s, {})
    finally:
        pool.close()
    return finished(exchange)
