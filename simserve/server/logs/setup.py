"""Logging as the settings say."""

from __future__ import annotations

import logging
import sys

from aiohttp.http_exceptions import HttpProcessingError

from simserve.server.logs.background import BackgroundHandler, Console
from simserve.server.logs.files import LogFile, RotatingFile
from simserve.server.logs.formats import JsonFormat, TextFormat
from simserve.server.secrecy import NONE, Secrets
from simserve.server.settings import LoggingSection


def set_up_logging(settings: LoggingSection, secrets: Secrets = NONE, *, rotate: bool = True) -> list[logging.Handler]:
    """Log to the console, to a file, to both or to neither; returns the handlers, which write in the background.

    No line has one of ``secrets`` in it, nor a part of one where it tells of an exception.
    Of several processes that write to the same file, all but one say ``rotate=False``.
    Raises :class:`simserve.errors.ConfigError` if the file cannot be written.
    """
    handlers: list[logging.Handler] = []
    if settings.console:
        console = BackgroundHandler(Console(sys.stdout), secrets=secrets)
        console.setFormatter(JsonFormat() if settings.format == "json" else TextFormat(bare=True))
        handlers.append(console)
    if settings.path is not None:
        rotation = settings.rotation if rotate else None
        sink = RotatingFile(settings.path, rotation, settings.retention) if rotation else LogFile(settings.path)
        file = BackgroundHandler(sink, secrets=secrets)
        file.setFormatter(JsonFormat() if settings.format == "json" else TextFormat())
        handlers.append(file)
    logging.basicConfig(handlers=handlers or [logging.NullHandler()], level=logging.WARNING, force=True)
    logging.getLogger("simserve").setLevel(settings.level.upper())
    logging.getLogger("aiohttp.server").addFilter(_without_the_request)
    return handlers


def _without_the_request(record: logging.LogRecord) -> bool:
    """aiohttp tells of a malformed request by quoting it, and what it quotes may be somebody's key."""
    error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
    if isinstance(error, HttpProcessingError):
        record.msg = f"{record.msg}: it is not HTTP as it should be ({type(error).__name__})"
        record.exc_info = record.exc_text = None
    return True
