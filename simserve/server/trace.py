"""What was served, kept to be taken away as a trace: ``GET /trace``."""

from __future__ import annotations

import asyncio
from array import array
from collections import deque
from typing import NamedTuple

import orjson
from aiohttp import web

from simserve.engines.reports import Arrival, Ending, StepReport

MAX_REQUESTS = 100_000
MAX_HASHES = 4_000_000
"""32 MB: so that long prompts cannot fill the memory either."""

ROWS_PER_WRITE = 100
"""About a millisecond of work, after which other clients have their turn."""

HEADERS = {
    "Content-Type": "application/jsonl; charset=utf-8",
    "Content-Disposition": 'attachment; filename="simserve-trace.jsonl"',
}


class _Row(NamedTuple):
    request_id: str
    arrival_s: float
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    finish_reason: str
    unit_tokens: int
    prefix_hashes: array[int]
    replica: str | None
    adapter: str


def _line(row: _Row) -> bytes:
    fields = row._asdict() | {"prefix_hashes": row.prefix_hashes.tolist()}
    if row.replica is None:
        del fields["replica"]
    if not row.adapter:
        del fields["adapter"]
    return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)


class ServedTrace:
    """The last requests that ended, at most ``max_requests`` with ``max_hashes`` prefix hashes; an engine's observer.

    The lines are those that ``simserve simulate --trace`` reads: see :mod:`simserve.workload.traces.served`.
    """

    def __init__(self, max_requests: int = MAX_REQUESTS, max_hashes: int = MAX_HASHES) -> None:
        self.forgotten = 0
        """Requests that had to make room for later ones."""
        self._rows: deque[_Row] = deque()
        self._max_requests = max_requests
        self._max_hashes = max_hashes
        self._hashes = 0

    def __len__(self) -> int:
        return len(self._rows)

    def arrived(self, arrival: Arrival) -> None:
        """A request is written down when it ends."""

    def step_done(self, step: StepReport) -> None:
        """Steps are not part of a trace."""

    def ended(self, ending: Ending) -> None:
        hashes = array("q", ending.prefix_hashes)
        self._rows.append(
            _Row(
                ending.request_id,
                ending.arrival_s,
                ending.input_tokens,
                ending.output_tokens,
                ending.cached_tokens,
                ending.finish_reason,
                ending.unit_tokens,
                hashes,
                ending.replica,
                ending.adapter,
            )
        )
        self._hashes += len(hashes)
        while len(self._rows) > self._max_requests or self._hashes > self._max_hashes:
            self._hashes -= len(self._rows.popleft().prefix_hashes)
            self.forgotten += 1

    async def send(self, request: web.Request) -> web.StreamResponse:
        """All of it as a download, a part at a time."""
        response = web.StreamResponse(headers=HEADERS)
        await response.prepare(request)
        rows = list(self._rows)
        for start in range(0, len(rows), ROWS_PER_WRITE):
            await response.write(b"".join(_line(row) for row in rows[start : start + ROWS_PER_WRITE]))
            await asyncio.sleep(0)
        await response.write_eof()
        return response
