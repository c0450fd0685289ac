"""Log files are put aside when they are large or old, and forgotten when there are too many or they are too old."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from simserve.errors import ConfigError
from simserve.server.logs.files import LogFile, RotatingFile
from simserve.server.settings.sections import Retention, Rotation


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "server.log"


@pytest.fixture
def opened() -> Iterator[list[logging.Handler]]:
    handlers: list[logging.Handler] = []
    yield handlers
    for handler in handlers:
        handler.close()


def write(handler: logging.Handler, *lines: str) -> None:
    for line in lines:
        handler.emit(logging.LogRecord("x", logging.INFO, "", 0, line, (), None))


def test_a_file_of_a_size(path: Path, opened: list[logging.Handler]) -> None:
    handler = RotatingFile(path, Rotation(bytes=100), None)
    opened.append(handler)
    lines = [f"line {number:03} {'x' * 20}" for number in range(40)]
    write(handler, *lines)
    files = [*handler.put_aside(), path]
    assert len(files) == 10
    assert all(file.stat().st_size < 160 for file in files)
    assert "".join(file.read_text() for file in files).splitlines() == lines


@pytest.mark.parametrize(("keep", "left"), [(3, 3), (0, 0), (100, 9)])
def test_so_many_are_kept(path: Path, opened: list[logging.Handler], keep: int, left: int) -> None:
    handler = RotatingFile(path, Rotation(bytes=100), Retention(count=keep))
    opened.append(handler)
    write(handler, *["x" * 29] * 40)
    assert len(handler.put_aside()) == left


def test_a_file_of_an_age(path: Path, opened: list[logging.Handler], monkeypatch: pytest.MonkeyPatch) -> None:
    start_s = now_s = time.time()
    monkeypatch.setattr(time, "time", lambda: now_s)
    handler = RotatingFile(path, Rotation(seconds=3600), None)
    opened.append(handler)
    for minutes in (0, 59, 61, 100, 122, 125):
        now_s = start_s + 60 * minutes
        write(handler, f"after {minutes}")
    files = [*handler.put_aside(), path]
    assert [file.read_text().split() for file in files] == [
        ["after", "0", "after", "59"], ["after", "61", "after", "100"], ["after", "122", "after", "125"],
    ]  # fmt: skip


def test_those_older_than_kept_are_forgotten(path: Path, opened: list[logging.Handler]) -> None:
    path.parent.mkdir()
    for days in (1, 6, 8, 30):
        old = path.with_name(f"server.log.2020-01-0{days % 9}")
        old.write_text("x")
        os.utime(old, (time.time() - days * 86400,) * 2)
    other = path.with_name("server.log.txt")
    other.write_text("not ours")
    os.utime(other, (0, 0))
    handler = RotatingFile(path, Rotation(bytes=100), Retention(seconds=7 * 86400))
    opened.append(handler)
    assert len(handler.put_aside()) == 2
    assert other.exists()


def test_several_writers_follow_the_one_that_rotates(path: Path, opened: list[logging.Handler]) -> None:
    first = RotatingFile(path, Rotation(bytes=50), None)
    others = [LogFile(path), LogFile(path)]
    opened += [first, *others]
    for number in range(9):
        write((first, *others)[number % 3], f"{number} {'x' * 20}")
    text = "".join(file.read_text() for file in [*first.put_aside(), path])
    assert [line[0] for line in text.splitlines()] == list("012345678")
    assert len(first.put_aside()) == 2


def test_where_nobody_can_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"logging\.path: .* cannot be written"):
        LogFile(tmp_path / "file" / "server.log")
