"""Ask a server some requests through the real client, in the test's own event loop."""

from __future__ import annotations

import io
from collections.abc import Sequence
from time import perf_counter
from typing import Any

from simserve.bench.backends import Ask, find_backend
from simserve.bench.load.driver import Driver, Load
from simserve.bench.measure.outcome import Outcome, outcome_of
from simserve.bench.sample import Sample
from simserve.bench.wire.address import parse_address
from simserve.bench.wire.encode import encode_request
from simserve.bench.wire.exchange import Finished, Spool
from simserve.bench.wire.pool import Pool

HELLO = Sample("hello there", 2, 3)


async def exchanges(
    url: str,
    backend: str,
    samples: Sequence[Sample],
    load: dict[str, Any] | None = None,
    pool: dict[str, Any] | None = None,
    **ask: Any,
) -> list[Finished]:
    """Send ``samples`` all at once, or as ``load`` says, and wait for the answers."""
    address, kind = parse_address(url), find_backend(backend)
    requests = [
        encode_request(index, address, kind.path, {}, kind.encode(Ask(sample, "a-model", **ask)))
        for index, sample in enumerate(samples)
    ]
    spool = Spool(io.BytesIO())
    connections = Pool(address, **(pool or {}))
    settings = {"due_s": [0.0] * len(requests)} | (load or {})
    try:
        await Driver(Load(requests, **settings), connections, spool.write).run(perf_counter())
    finally:
        connections.close()
    return sorted(spool.read(), key=lambda exchange: exchange.index)


async def outcomes(
    url: str, backend: str, samples: Sequence[Sample] = (HELLO,), load: dict[str, Any] | None = None, **ask: Any
) -> list[Outcome]:
    """What became of them."""
    done = await exchanges(url, backend, samples, load, **ask)
    return [outcome_of(exchange, find_backend(backend), keep_text=True) for exchange in done]


async def outcome(url: str, backend: str, sample: Sample = HELLO, **ask: Any) -> Outcome:
    """What became of the one."""
    (one,) = await outcomes(url, backend, [sample], **ask)
    return one
