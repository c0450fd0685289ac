"""Server-sent events, each with the instant at which its last byte arrived."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import orjson

from simserve.bench.wire.exchange import Finished
from simserve.bench.wire.framing import ChunkScanner, FramingError, Head, parse_head


@dataclass(frozen=True)
class Event:
    """One event: ``name`` is the SSE field it came in ("data", or llama.cpp's "error"); ``data`` its payload."""

    time_s: float
    name: str
    data: bytes

    def json(self) -> object:
        """The payload as JSON; raises :class:`BrokenStream` for what is none."""
        try:
            return orjson.loads(self.data)
        except orjson.JSONDecodeError:
            raise BrokenStream(f"an event is no JSON: {self.data[:60].decode('utf-8', 'replace')!r}") from None


class BrokenStream(Exception):
    """A stream that does not hold what its protocol promises."""


@dataclass(frozen=True)
class Response:
    """A response taken apart. ``is_complete`` says whether all of its body came; a head is None if not even that came.

    ``starts`` and ``ends`` are where in the body each read's part of it lies, ``times_s`` when each read came.
    """

    head: Head | None
    body: bytes
    is_complete: bool
    ends: Sequence[int]
    times_s: Sequence[float]

    def times_of(self, offsets: Sequence[int]) -> list[float]:
        """When the body's bytes at ``offsets`` arrived."""
        places = np.searchsorted(np.asarray(self.ends), np.asarray(offsets), side="right")
        return [self.times_s[place] for place in places.tolist()]


def take_apart(exchange: Finished) -> Response:
    """The response of ``exchange``: head, body without chunk sizes, and what came when."""
    raw = exchange.raw
    try:
        head = parse_head(raw)
        if head is None:
            return Response(None, b"", False, [], [])
        payload, is_complete = _payload(head, raw, exchange.trouble == "")
    except FramingError:
        return Response(None, b"", False, [], [])
    body = b"".join(raw[start:end] for start, end in payload)
    # Of each read, the end within the body: what of the payload lies before the read's end in the raw bytes.
    read_ends = np.cumsum(np.asarray(exchange.read_bytes, dtype=np.int64))
    starts = np.array([start for start, _ in payload], dtype=np.int64)
    sizes = np.array([end - start for start, end in payload], dtype=np.int64)
    before = np.concatenate(([0], np.cumsum(sizes)))
    place = np.searchsorted(starts, read_ends, side="right") - 1
    within = np.where(place >= 0, np.minimum(read_ends - starts[place], sizes[place]), 0) if len(starts) else 0
    ends = before[np.maximum(place, 0)] + within if len(starts) else np.zeros(len(read_ends), dtype=np.int64)
    return Response(head, body, is_complete, ends.tolist(), exchange.times_s)


def _payload(head: Head, raw: bytes, ended_well: bool) -> tuple[list[tuple[int, int]], bool]:
    """Where in ``raw`` the body lies, and whether it is all there."""
    if head.is_chunked:
        scanner = ChunkScanner()
        is_complete = scanner.feed(raw[head.size :])
        shifted = [(start + head.size, min(end + head.size, len(raw))) for start, end in scanner.payload]
        return [(start, end) for start, end in shifted if start < end], is_complete
    length = head.content_length
    body = [(head.size, len(raw))] if len(raw) > head.size else []
    return body, ended_well if length is None else len(raw) - head.size == length


def events_of(response: Response) -> list[Event]:
    """The events of a body, comments left out.

    Lines may end in LF or CRLF; "data:" may or may not be followed by a space; an event of several data lines is
    joined, as the standard has it. An event counts from when the last byte of its last line came, not from the blank
    line after it, which some servers send late and some, at the end, never.
    """
    found: list[tuple[int, str, bytes]] = []
    parts: list[bytes] = []
    name, end, at = "", 0, 0
    body = response.body
    while at < len(body):
        newline = body.find(b"\n", at)
        stop = len(body) if newline < 0 else newline
        line = body[at:stop]
        if line.endswith(b"\r"):
            line = line[:-1]
        if not line:
            if parts:
                found.append((end, name, b"\n".join(parts)))
            parts = []
        elif line.startswith((b"data:", b"error:")):
            field_name, _, value = line.partition(b":")
            if parts and field_name.decode() != name:
                found.append((end, name, b"\n".join(parts)))
                parts = []
            name = field_name.decode()
            parts.append(value[1:] if value.startswith(b" ") else value)
            end = at + len(line) - 1
        at = stop + 1
    if parts:
        found.append((end, name, b"\n".join(parts)))
    found = [event for event in found if event[2]]
    times_s = response.times_of([end for end, _, _ in found]) if found else []
    return [Event(time_s, name, data) for time_s, (_, name, data) in zip(times_s, found, strict=True)]
