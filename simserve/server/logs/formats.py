"""Lines of a log: text for people, or one JSON object each."""

from __future__ import annotations

import logging
from datetime import datetime

import orjson

from simserve.server.request_ids import current_request_id


class TextFormat(logging.Formatter):
    """Time, severity and message; with ``bare``, as on a console that somebody watches, the message alone."""

    def __init__(self, *, bare: bool = False) -> None:
        super().__init__("%(message)s" if bare else "%(asctime)s %(levelname)s %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """ISO 8601 with milliseconds and the zone."""
        return timestamp(record)


class JsonFormat(logging.Formatter):
    """``time``, ``level``, ``logger``, ``message``, the request's id if there is one, and the record's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        body: dict[str, object] = {
            "time": timestamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        request_id = current_request_id()
        if request_id:
            body["request_id"] = request_id
        body |= getattr(record, "fields", {})
        if record.exc_info:
            body["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(body, default=str).decode()


def timestamp(record: logging.LogRecord) -> str:
    """When the record was made, in this machine's time."""
    return datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")
