"""Read a trace from a file or a web address, whatever its format, as a workload."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import numpy as np

from simserve.errors import WorkloadError
from simserve.workload.traces.format import Requests, TraceFormat
from simserve.workload.traces.formats import FORMATS
from simserve.workload.traces.table import Table, parse_table
from simserve.workload.workload import Workload

DOWNLOAD_TIMEOUT_S = 30.0


def read_trace(source: str) -> Workload:
    """The requests of the trace at ``source``, a path or an http(s) address; the workload has the file's name.

    The format is told from the header (CSV) or the keys (JSON Lines); see :data:`FORMATS`. Rows are put in order of
    arrival where they are not (equal times keep the file's order), and times are counted from the first arrival. Raises
    :class:`WorkloadError` for a source that cannot be read, an unknown format or a bad row, naming file and line.
    """
    name, content = _fetch(source)
    table = parse_table(name, content)
    return _workload(name, _format_of(table).read(table))


def is_address(source: str) -> bool:
    """Whether a trace is to be had from an http(s) server, where it may be another one next time."""
    return source.startswith(("http://", "https://"))


def keep_trace(url: str, folder: Path) -> Path:
    """Download the trace at ``url`` into ``folder``, named by its content, so that many runs read the same one.

    Raises :class:`WorkloadError` if it cannot be had, :class:`OSError` if it cannot be written.
    """
    name, content = _fetch(url)
    path = folder / f"{PurePosixPath(name).stem}-{hashlib.sha256(content).hexdigest()[:8]}{PurePosixPath(name).suffix}"
    path.write_bytes(content)
    return path


def _fetch(source: str) -> tuple[str, bytes]:
    """The file's name and content."""
    if is_address(source):
        content = _download(source)  # first: it rejects a malformed address
        return PurePosixPath(urlsplit(source).path).name or source, content
    try:
        return Path(source).name, Path(source).read_bytes()
    except OSError as error:
        raise WorkloadError(f"cannot read the trace {source}: {error.strerror}; check the path") from error


def _download(url: str) -> bytes:
    from http.client import HTTPException
    from urllib.request import urlopen  # slow to import, seldom needed

    try:
        with urlopen(url, timeout=DOWNLOAD_TIMEOUT_S) as response:
            content: bytes = response.read()
            return content
    except (OSError, HTTPException, ValueError) as error:
        raise WorkloadError(
            f"cannot download the trace {url}: {error}; check the address, or fetch it yourself and give its path"
        ) from error


def _format_of(table: Table) -> TraceFormat:
    names = list(table.columns)
    for candidate in FORMATS.values():
        if set(candidate.required) <= set(names):
            known = {*candidate.required, *candidate.optional}
            unknown = [name for name in names if name not in known]
            if unknown:
                raise WorkloadError(
                    f"{table.source} looks like {candidate.name} but also has {', '.join(unknown)}, which SimServe does"
                    f" not understand there; remove what is not one of {', '.join(sorted(known))}"
                )
            return candidate
    understood = "; ".join(f"{format.name} ({', '.join(format.required)})" for format in FORMATS.values())
    raise WorkloadError(
        f"{table.source} has the columns {', '.join(names)[:200]}, which is no trace format that SimServe knows;"
        f" it understands {understood}"
    )


def _workload(name: str, requests: Requests) -> Workload:
    """``requests`` in order of arrival, counted from the first."""
    order = np.argsort(requests.arrival_s, kind="stable")
    arrival_s = requests.arrival_s[order]
    return Workload(
        name=name,
        arrival_s=arrival_s - arrival_s[0],
        input_tokens=requests.input_tokens[order],
        output_tokens=requests.output_tokens[order],
        prefix=None if requests.prefix is None else requests.prefix.take(order),
        dropped_requests=requests.dropped_requests,
        adapters=None if requests.adapters is None else requests.adapters[order],
    )
