"""Reads a client pool from a folder or a tar file."""

from __future__ import annotations

import csv
import io
import math
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt
import orjson

from simserve.errors import WorkloadError
from simserve.workload.servegen.pool import SPAN_S, ClientPool, Spans
from simserve.workload.servegen.table import LengthTable

FIELDS = ("input_tokens", "output_tokens", "reason_ratio")

MEMBER = re.compile(r"chunk-(\d+)-(trace\.csv|dataset\.json)$")

SUFFIXES = (".tar.gz", ".tgz", ".tar")


def is_client_pool(source: str) -> bool:
    """Whether ``source`` is a folder or a tar file, as client pools come, and not a trace."""
    return source.endswith(SUFFIXES) or Path(source).is_dir()


def read_client_pool(source: str) -> ClientPool:
    """The pool in the folder or tar file ``source``.

    Raises :class:`WorkloadError`, naming file and line, for what is missing or not understood.
    """
    rows: list[Row] = []
    tables: list[LengthTable] = []
    length_s = 0.0
    for client, parts in _clients(source):
        own_rows, end_s = _trace(f"{client}-trace.csv", parts["trace.csv"])
        begin_s, own_tables = _tables(f"{client}-dataset.json", parts["dataset.json"])
        # Lengths before the first time of a dataset are those of that time.
        places = np.maximum(np.searchsorted(begin_s, [row.start_s for row in own_rows], side="right") - 1, 0)
        rows += [row._replace(table=len(tables) + place) for row, place in zip(own_rows, places.tolist(), strict=True)]
        tables += own_tables
        length_s = max(length_s, end_s)
    return ClientPool(Path(source).name, length_s, _spans(rows), tables)


class Row(NamedTuple):
    """One span of a client that sends requests; see :class:`Spans`."""

    start_s: float
    rate_per_s: float
    shape: float
    is_weibull: bool
    table: int = 0


def _spans(rows: list[Row]) -> Spans:
    columns = np.array(rows, dtype=np.float64).reshape(-1, len(Row._fields)).T
    start_s, rate_per_s, shape, is_weibull, table = np.ascontiguousarray(columns)
    return Spans(start_s, rate_per_s, shape, is_weibull > 0, table.astype(np.int64))


def _clients(source: str) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Name and files of each client, by number."""
    clients: dict[tuple[str, int], dict[str, bytes]] = {}
    for path, content in _files(source):
        if match := MEMBER.search(path):
            clients.setdefault((path[: match.start()], int(match[1])), {})[match[2]] = content
    if not clients:
        raise WorkloadError(f"{source} holds no chunk-N-trace.csv, so it is no ServeGen client pool; check the path")
    folders = sorted({folder for folder, _ in clients})
    if len(folders) > 1:
        raise WorkloadError(f"{source} holds several client pools ({', '.join(folders)}); give one of them")
    for (_, number), parts in sorted(clients.items()):
        if len(parts) < 2:
            raise WorkloadError(f"{source} has only {' '.join(parts)} of client {number}; add the other file")
        yield f"chunk-{number}", parts


def _files(source: str) -> Iterator[tuple[str, bytes]]:
    """Names and contents of all files in a folder or a tar file."""
    try:
        if Path(source).is_dir():
            for path in sorted(Path(source).glob("chunk-*")):
                yield path.name, path.read_bytes()
            return
        with tarfile.open(source) as archive:
            for member in archive:
                if file := archive.extractfile(member):
                    yield member.name, file.read()
    except (OSError, EOFError, tarfile.TarError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WorkloadError(f"cannot read the client pool {source}: {reason}; check the path") from error


def _trace(name: str, content: bytes) -> tuple[list[Row], float]:
    """The spans in which a client sends anything, and when its trace ends."""
    rows: list[Row] = []
    end_s = 0.0
    for number, cells in enumerate(csv.reader(io.StringIO(content.decode("utf-8", "replace"))), start=1):
        if not cells:
            continue
        try:
            start_s, rate, _cv, law, shape, _scale = cells
            row = Row(float(start_s), float(rate), float(shape), law == "Weibull")
        except ValueError:
            _blame(name, number, cells)
        silent = row.rate_per_s == 0
        sends = 0 < row.rate_per_s < math.inf and 0 < row.shape < math.inf and law in ("Gamma", "Weibull")
        if not (silent or sends) or not end_s <= row.start_s < math.inf or row.start_s % SPAN_S:
            _blame(name, number, cells)
        end_s = row.start_s + SPAN_S
        if sends:
            rows.append(row)
    return rows, end_s


def _blame(name: str, line: int, cells: list[str]) -> NoReturn:
    raise WorkloadError(
        f"{name} line {line} is '{','.join(cells)[:80]}'; it must be start_s,rate,cv,Gamma|Weibull,shape,scale with"
        f" times that ascend in steps of {SPAN_S:g}"
    )


def _tables(name: str, content: bytes) -> tuple[npt.NDArray[np.float64], list[LengthTable]]:
    """The times from which each table of lengths holds, ascending, and the tables."""
    try:
        by_time = {float(start): dict(fields) for start, fields in orjson.loads(content).items()}
        is_text = all(isinstance(text, str) for fields in by_time.values() for text in fields.values())
    except (ValueError, TypeError, AttributeError):
        is_text = False
    if not is_text or not by_time:
        raise WorkloadError(f"{name} must be an object of times, each an object of probabilities as text; repair it")
    if unknown := sorted({field for fields in by_time.values() for field in fields} - set(FIELDS)):
        raise WorkloadError(
            f"{name} has {', '.join(unknown)}, which SimServe cannot simulate; it understands {', '.join(FIELDS)}"
        )
    times = sorted(by_time)
    return np.array(times), [LengthTable(f"{name} at {time:g}", by_time[time]) for time in times]
