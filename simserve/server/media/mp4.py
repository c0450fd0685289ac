"""The size and the number of frames of a film in MP4 or QuickTime, from its tables alone (ISO 14496-12)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

INSIDE = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
"""Boxes that are boxes themselves."""

MAX_BOXES = 10_000


@dataclass(frozen=True)
class Track:
    """What its tables say of a track of pictures."""

    width: int
    height: int
    frames: int


def read_track(raw: bytes) -> Track | None:
    """The first track with pictures, None if there is none or the file is broken."""
    width = height = 0
    try:
        for kind, start, end in _boxes(raw, 0, len(raw)):
            if kind == b"trak":
                width = height = 0
            elif kind == b"tkhd":
                # Both are the last fields, in 16.16 fixed point; tracks of sound have none.
                width, height = (size >> 16 for size in struct.unpack_from(">II", raw, end - 8))
            elif kind == b"stts" and width and height:
                frames = _samples(raw, start, end)
                return Track(width, height, frames) if frames else None
    except (struct.error, ValueError):
        return None
    return None


def _samples(raw: bytes, start: int, end: int) -> int:
    """The samples in a table of their durations: runs of a number and a duration."""
    (runs,) = struct.unpack_from(">I", raw, start + 4)
    if start + 8 + 8 * runs > end:
        raise ValueError("the table is cut off")
    return sum(struct.unpack_from(f">{2 * runs}I", raw, start + 8)[::2])


def _boxes(raw: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, and first and last byte of what is in it, of every box; those inside another follow it."""
    stretches, seen = [(start, end)], 0
    while stretches:
        at, end = stretches.pop()
        if at + 8 > end:
            continue
        size, kind = struct.unpack_from(">I4s", raw, at)
        head = 8
        if size == 1:
            (size,), head = struct.unpack_from(">Q", raw, at + 8), 16
        size = size or end - at
        seen += 1
        if size < head or at + size > end or seen > MAX_BOXES:
            raise ValueError("a box does not fit")
        stretches.append((at + size, end))
        yield kind, at + head, at + size
        if kind in INSIDE:
            stretches.append((at + head, at + size))
