"""Where an HTTP/1.1 response begins and ends, and which of its bytes are body.

Two readers use this: a connection, which must know at once when an answer is complete, and the analysis after the run,
which maps every byte of a body to the read that brought it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

HEAD_END = b"\r\n\r\n"
MAX_HEAD_BYTES = 64 * 1024
MAX_SIZE_LINE_BYTES = 4096


class FramingError(Exception):
    """Bytes that are no HTTP/1.1 response."""


@dataclass(frozen=True)
class Head:
    """Status line and headers (names in lower case); the body starts at byte ``size`` of the response."""

    status: int
    reason: str
    headers: dict[str, str]
    size: int

    @property
    def is_chunked(self) -> bool:
        """Whether the body comes in chunks that say their own size."""
        return "chunked" in self.headers.get("transfer-encoding", "").lower()

    @property
    def content_length(self) -> int | None:
        """Bytes of the body, or None where only the end of the chunks or of the connection tells."""
        if self.is_chunked:
            return None
        if self.status in (204, 304):
            return 0
        length = self.headers.get("content-length")
        if length is None:
            return None
        if not length.isdecimal():
            raise FramingError(f"Content-Length is {length!r}")
        return int(length)

    @property
    def keeps_alive(self) -> bool:
        """Whether the connection can carry another request after this answer."""
        ends_itself = self.is_chunked or self.content_length is not None
        return ends_itself and self.headers.get("connection", "").lower() != "close"


def parse_head(data: bytes | bytearray) -> Head | None:
    """The head of a response, past any 1xx ones; None while it is incomplete. Raises :class:`FramingError`."""
    start = 0
    while True:
        end = data.find(HEAD_END, start)
        if end < 0:
            if len(data) - start > MAX_HEAD_BYTES:
                raise FramingError("the headers do not end")
            if not b"HTTP/".startswith(bytes(data[start : start + 5])) and data[start : start + 5] != b"HTTP/":
                raise FramingError(f"it begins with {bytes(data[start : start + 20])!r}")
            return None
        head = _parse(bytes(data[start:end]).decode("latin-1"), end + len(HEAD_END))
        if head.status >= 200:
            return head
        start = head.size


def _parse(text: str, size: int) -> Head:
    status_line, *lines = text.split("\r\n")
    version, _, rest = status_line.partition(" ")
    code, _, reason = rest.partition(" ")
    if not version.startswith("HTTP/1.") or len(code) != 3 or not code.isdecimal():
        raise FramingError(f"it begins with {status_line[:40]!r}")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise FramingError(f"a header reads {line[:40]!r}")
        headers[name.strip().lower()] = value.strip()
    if version == "HTTP/1.0":
        headers.setdefault("connection", "close")
    return Head(int(code), reason, headers, size)


@dataclass
class ChunkScanner:
    """Finds the end of a chunked body, and where its payload lies; positions count from the body's first byte."""

    is_complete: bool = False
    payload: list[tuple[int, int]] = field(default_factory=list)
    _position: int = 0
    _skip: int = 0
    _line: bytes = b""
    _in_trailer: bool = False

    def feed(self, data: bytes) -> bool:
        """Read on; True once the body is complete. Raises :class:`FramingError` for what are no chunks."""
        at, size = 0, len(data)
        while at < size and not self.is_complete:
            if self._skip:
                step = min(self._skip, size - at)
                self._skip -= step
                at += step
                continue
            newline = data.find(b"\n", at)
            if newline < 0:
                self._line += data[at:]
                if len(self._line) > MAX_SIZE_LINE_BYTES:
                    raise FramingError("a chunk does not say its size")
                at = size
            else:
                line = self._line + data[at:newline]
                self._line = b""
                at = newline + 1
                self._take_line(line.rstrip(b"\r"), self._position + at)
        self._position += at
        return self.is_complete

    def _take_line(self, line: bytes, after: int) -> None:
        if self._in_trailer:
            self.is_complete = not line
            return
        try:
            size = int(line.partition(b";")[0], 16)
        except ValueError:
            raise FramingError(f"a chunk's size reads {line[:20]!r}") from None
        if size < 0:
            raise FramingError(f"a chunk's size reads {line[:20]!r}")
        if size:
            self.payload.append((after, after + size))
            self._skip = size + 2
        else:
            self._in_trailer = True
