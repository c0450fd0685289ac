"""A log file that is put aside when it is large or old, and forgotten some time later.

Several processes may write to one file: lines are appended whole, and whoever finds that the file was put aside opens
the new one. Only one of them may rotate.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import time
from pathlib import Path

from simserve.errors import ConfigError
from simserve.server.logs.background import write_all
from simserve.server.settings.sections import Retention, Rotation

STAMP = "%Y-%m-%d_%H-%M-%S"


class LogFile(logging.handlers.WatchedFileHandler):
    """Appends to ``path``, or to the new file if somebody puts that one aside.

    Raises :class:`ConfigError` if it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            super().__init__(path, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"logging.path: {path} cannot be written ({error.strerror})") from None

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        self.write(f"{self.format(record)}\n")

    def write(self, text: str) -> None:
        """Write whole lines, in one piece, or none: see :class:`simserve.server.logs.background.LineSink`."""
        self.reopenIfNeeded()
        if text and self.stream:
            write_all(self.stream.fileno(), text.encode(errors="backslashreplace"))


class RotatingFile(LogFile):
    """Puts the file aside, under its name and the time, as ``rotation`` says, and keeps as many as ``retention`` says.

    It looks whether it is time for that whenever it is to write, be it nothing: other processes may write to the file,
    too. A file from before counts as young as it was last written to.
    """

    def __init__(self, path: Path, rotation: Rotation, retention: Retention | None) -> None:
        self._path = path
        self._rotation = rotation
        self._retention = retention or Retention()
        self._since_s = path.stat().st_mtime if path.exists() else time.time()
        super().__init__(path)
        self.forget()

    def write(self, text: str) -> None:
        """Write whole lines, or none, into a new file if it is time for one."""
        self._rotate_if_due()
        super().write(text)

    def _rotate_if_due(self) -> None:
        """Put the file aside if it is large or old enough."""
        try:
            size = self._path.stat().st_size
        except FileNotFoundError:
            return
        large = self._rotation.bytes is not None and size >= self._rotation.bytes
        old = self._rotation.seconds is not None and time.time() - self._since_s >= self._rotation.seconds
        if size and (large or old):
            self._path.rename(self._free_name())
            self._since_s = time.time()
            self.reopenIfNeeded()
            self.forget()

    def forget(self) -> None:
        """Delete what is older, or more, than is to be kept."""
        aside = self.put_aside()
        keep, age_s = self._retention.count, self._retention.seconds
        spare = aside[: max(0, len(aside) - keep)] if keep is not None else []
        if age_s is not None:
            spare += [path for path in aside if time.time() - path.stat().st_mtime > age_s]
        for path in spare:
            path.unlink(missing_ok=True)

    def put_aside(self) -> list[Path]:
        """The files that were put aside, oldest first."""
        found = self._path.parent.glob(f"{self._path.name}.[0-9]*")
        return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name))

    def _free_name(self) -> Path:
        name = f"{self._path.name}.{time.strftime(STAMP)}"
        candidates = [name, *(f"{name}-{number:03}" for number in range(1, 1000))]
        return self._path.with_name(next(one for one in candidates if not os.path.lexists(self._path.with_name(one))))
