"""What is done, kept safe: each outcome is committed to a SQLite file at once, so that a killed sweep loses nothing."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from simserve.errors import ConfigError
from simserve.sweep.jobs import Outcome

FILE_NAME = "runs.sqlite"

SCHEMA = """
create table if not exists outcomes(
    key text primary key, settings text not null, result text, error text, search text not null, wall_s real not null
) without rowid;
create table if not exists notes(name text primary key, value text not null) without rowid;
"""


class Store:
    """Outcomes by their key in ``folder``; raises :class:`ConfigError` if that cannot be written, or is no store."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE_NAME
        with self._errors_in_words():
            folder.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(self.path, timeout=30.0)
            self._file.execute("pragma journal_mode=wal")
            self._file.execute("pragma synchronous=normal")  # safe against a killed process, and quick
            self._file.executescript(SCHEMA)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def add(self, outcome: Outcome) -> None:
        """Commit ``outcome``; one of the same key that is there already stays, as it is the same."""
        row = (
            outcome.key,
            json.dumps(outcome.settings),
            None if outcome.result is None else json.dumps(outcome.result),
            outcome.error,
            json.dumps(outcome.search),
            outcome.wall_s,
        )
        with self._errors_in_words(), self._file:
            self._file.execute("insert or ignore into outcomes values (?, ?, ?, ?, ?, ?)", row)

    def keys(self) -> set[str]:
        """Of all that is done."""
        with self._errors_in_words():
            return {key for (key,) in self._file.execute("select key from outcomes")}

    def outcomes(self, keys: Iterable[str]) -> list[Outcome]:
        """Those of ``keys`` that are done, in that order."""
        with self._errors_in_words():
            rows = {row[0]: row for row in self._file.execute("select * from outcomes")}
        return [_outcome(rows[key]) for key in keys if key in rows]

    def note(self, name: str, value: object) -> None:
        """Keep something about the sweep, such as its spec."""
        with self._errors_in_words(), self._file:
            self._file.execute("insert or replace into notes values (?, ?)", (name, json.dumps(value)))

    def noted(self, name: str) -> object | None:
        """What was kept under ``name``; None if nothing was."""
        with self._errors_in_words():
            found = self._file.execute("select value from notes where name = ?", (name,)).fetchone()
        return None if found is None else json.loads(found[0])

    @contextmanager
    def _errors_in_words(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ConfigError(f"cannot keep the sweep's runs in {self.path}: {reason}") from None


def open_store(folder: Path) -> Store:
    """The store of a sweep that was made before; raises :class:`ConfigError` if ``folder`` has none."""
    if not (folder / FILE_NAME).is_file():
        raise ConfigError(f"there is no sweep in {folder}: it has no {FILE_NAME}")
    return Store(folder)


def _outcome(row: tuple[str, str, str | None, str | None, str, float]) -> Outcome:
    key, settings, result, error, search, wall_s = row
    return Outcome(
        key, json.loads(settings), None if result is None else json.loads(result), error, json.loads(search), wall_s
    )
