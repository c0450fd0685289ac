"""A run as a trace in Chrome's format, for ui.perfetto.dev: a slice per step, transfer, start and part of a request.

Events are written as they happen and none is kept, so that a trace takes disk and no memory. Times are microseconds, to
the nanosecond. The format is described in "Trace Event Format" (Google, 2016): ``X`` is a slice of a track, ``b`` and
``e`` are the ends of an asynchronous one, ``M`` names.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from simserve.errors import ConfigError
from simserve.scheduling import Request, Scheduler, StepPlan
from simserve.simulation.replica import Run

MOST_TRACE_EVENTS = 1_000_000
"""Some 150 MB, about what Perfetto still opens."""

LINKS = 1_000_000
"""Number of the trace's process that has the links; replicas are numbered from 1."""

REQUEST_EVENTS = 8


class ChromeTrace:
    """Writes to ``path``, compressed if it ends in ``.gz``, at most ``most_events`` events; others are counted.

    Raises :class:`ConfigError` where that cannot be written.
    """

    def __init__(self, path: Path, most_events: int = MOST_TRACE_EVENTS) -> None:
        self.events = 0
        self.left_out = 0
        self._most_events = most_events
        self._path = path
        self._file: IO[str] = self._open(path)
        self._file.write('{"displayTimeUnit":"ms","traceEvents":[')
        self._separator = "\n"
        self._lanes: dict[int, list[int]] = {}
        """Of each process: when the last slice on each of its tracks ends, in nanoseconds."""
        self._links: dict[str, int] = {}

    def ran(self, index: int, name: str, scheduler: Scheduler, run: Run) -> None:
        """See :class:`~simserve.simulation.watching.watcher.Watcher`: a slice for each step."""
        if not self._has_room(len(run.durations_s)):
            return
        ends_ns = [round(end_s * 1e9) for end_s in np.asarray(run.ends_s).tolist()]
        start_ns = round(run.start_s * 1e9)
        track = self._track(index + 1, name, start_ns, ends_ns[-1])
        plan, context = run.plan, run.plan.decode_context_tokens
        for end_ns in ends_ns:
            self._slice(index + 1, track, _kind(plan), start_ns, end_ns, _step(plan, context))
            start_ns = end_ns
            context += plan.num_decodes

    def ended(self, index: int, request: Request) -> None:
        """See :class:`~simserve.simulation.watching.watcher.Watcher`: its whole stay, and the parts of it."""
        if not self._has_room(REQUEST_EVENTS):
            return
        times_s = (request.arrival_s, request.scheduled_s, request.first_token_s, request.finish_s)
        about = {
            "input_tokens": request.input_tokens, "output_tokens": request.output_tokens,
            "cached_tokens": request.cached_tokens, "preemptions": request.preemptions,
        }  # fmt: skip
        self._span(index + 1, request.request_id, "request", times_s[0], times_s[3], about)
        for part, start_s, end_s in zip(("queued", "prefill", "decode"), times_s, times_s[1:], strict=False):
            self._span(index + 1, request.request_id, part, start_s, end_s, {})

    def transferred(self, link: str, request: Request, size_bytes: float, start_s: float, end_s: float) -> None:
        """See :class:`~simserve.simulation.watching.watcher.Watcher`: a slice on the link's track."""
        if not self._has_room(1):
            return
        if not self._links:
            self._name("process_name", LINKS, 0, "links")
        if link not in self._links:
            self._links[link] = len(self._links) + 1
            self._name("thread_name", LINKS, self._links[link], link)
        about = {"request": request.request_id, "bytes": round(size_bytes)}
        self._slice(LINKS, self._links[link], "KV", round(start_s * 1e9), round(end_s * 1e9), about)

    def started(self, index: int, name: str, weight_bytes: int, times_s: tuple[float, float, float]) -> None:
        """See :class:`~simserve.simulation.watching.watcher.Watcher`: two slices where later its steps are."""
        if not self._has_room(2):
            return
        begin_ns, loaded_ns, ready_ns = (round(time_s * 1e9) for time_s in times_s)
        track = self._track(index + 1, name, begin_ns, ready_ns)
        self._slice(index + 1, track, "load weights", begin_ns, loaded_ns, {"bytes": weight_bytes})
        self._slice(index + 1, track, "start", loaded_ns, ready_ns, {})

    def close(self) -> None:
        """End the file; nothing may be told any more."""
        self._file.write("\n]}\n")
        self._file.close()

    def _has_room(self, events: int) -> bool:
        if self.events + events > self._most_events:
            self.left_out += events
            return False
        self.events += events
        return True

    def _track(self, process: int, name: str, start_ns: int, end_ns: int) -> int:
        """The first track on which nothing runs any more: steps overlap only where an engine has several under way."""
        lanes = self._lanes.get(process)
        if lanes is None:
            lanes = self._lanes[process] = []
            self._name("process_name", process, 0, name)
        track = next((track for track, until_ns in enumerate(lanes) if until_ns <= start_ns), len(lanes))
        if track == len(lanes):
            lanes.append(0)
            self._name("thread_name", process, track + 1, "steps" if track == 0 else f"steps {track + 1}")
        lanes[track] = end_ns
        return track + 1

    def _name(self, what: str, process: int, track: int, name: str) -> None:
        self._write({"ph": "M", "name": what, "pid": process, "tid": track, "args": {"name": name}})

    def _slice(self, process: int, track: int, name: str, start_ns: int, end_ns: int, about: Mapping[str, Any]) -> None:
        times = {"ts": start_ns / 1000, "dur": (end_ns - start_ns) / 1000}
        self._write({"ph": "X", "name": name, "pid": process, "tid": track, **times, "args": about})

    def _span(
        self, process: int, request_id: object, name: str, start_s: float, end_s: float, about: Mapping[str, Any]
    ) -> None:
        same = {"cat": "request", "id": str(request_id), "name": name, "pid": process, "tid": 0}
        self._write({"ph": "b", **same, "ts": round(start_s * 1e9) / 1000, "args": about})
        self._write({"ph": "e", **same, "ts": round(end_s * 1e9) / 1000})

    def _write(self, event: Mapping[str, Any]) -> None:
        self._file.write(self._separator)
        self._file.write(json.dumps(event, separators=(",", ":")))
        self._separator = ",\n"

    def _open(self, path: Path) -> IO[str]:
        try:
            if path.suffix == ".gz":
                return gzip.open(path, "wt", encoding="utf-8", compresslevel=4)
            return path.open("w", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"cannot write the trace {path}: {error.strerror}") from None


def _kind(plan: StepPlan) -> str:
    return "decode" if not plan.chunks else "mixed" if plan.num_decodes else "prefill"


def _step(plan: StepPlan, context_tokens: int) -> dict[str, int]:
    return {
        "batch": plan.num_decodes - plan.padding + len(plan.chunks),
        "tokens": plan.tokens,
        "prefill_tokens": plan.prefill_tokens,
        "decodes": plan.num_decodes,
        "decode_context_tokens": context_tokens,
    }
