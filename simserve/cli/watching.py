"""``--trace-out`` and ``--timeline``: options, and what becomes of them after a run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from simserve.cli.options import whole_number
from simserve.errors import ConfigError

if TYPE_CHECKING:
    from simserve.simulation import SimulationResult
    from simserve.simulation.cluster import ClusterResult
    from simserve.simulation.watching import ChromeTrace, Timeline, Watcher
    from simserve.simulation.watching.plot import Mark


def add_watching_arguments(group: argparse._ArgumentGroup) -> None:
    """Add the options; :class:`Watching` does what they say."""
    group.add_argument(
        "--trace-out",
        type=Path,
        metavar="FILE",
        help="steps, transfers and requests as a trace for ui.perfetto.dev (.json or .json.gz)",
    )
    group.add_argument(
        "--trace-limit", type=whole_number, metavar="N", help="most events in it; later ones are left out (1000000)"
    )
    group.add_argument(
        "--timeline",
        type=Path,
        metavar="FILE",
        help="plot queue, batch, KV and tokens/s over time, of each replica (.png, .svg or .html; needs matplotlib)",
    )


class Watching:
    """The watchers that ``args`` ask for; raises :class:`ConfigError` now for what cannot be written later."""

    def __init__(self, args: argparse.Namespace) -> None:
        from simserve.simulation.watching import MOST_TRACE_EVENTS, ChromeTrace, Timeline
        from simserve.simulation.watching.plot import check_timeline_path

        self.trace: ChromeTrace | None = None
        self.timeline: Timeline | None = None
        self._args = args
        if args.trace_limit is not None and (args.trace_out is None or args.trace_limit < 1):
            raise ConfigError("--trace-limit is a number of events, at least 1, and goes with --trace-out FILE")
        if args.timeline is not None:
            check_timeline_path(args.timeline)
            self.timeline = Timeline()
        if args.trace_out is not None:
            self.trace = ChromeTrace(args.trace_out, args.trace_limit or MOST_TRACE_EVENTS)

    @property
    def watchers(self) -> tuple[Watcher, ...]:
        return tuple(each for each in (self.trace, self.timeline) if each is not None)

    def finish(self, done: SimulationResult | ClusterResult, title: str) -> None:
        """Write what was asked for, and say where it is."""
        from simserve.simulation.watching.plot import write_timeline

        if self.trace is not None:
            self.trace.close()
            left_out = f"; {self.trace.left_out:,} later ones are left out" if self.trace.left_out else ""
            print(f"wrote {self._args.trace_out}, {self.trace.events:,} events{left_out}", file=sys.stderr)
        if self.timeline is not None:
            write_timeline(self._args.timeline, self.timeline, _marks(done), title)
            print(f"wrote {self._args.timeline}", file=sys.stderr)


@contextmanager
def watching(args: argparse.Namespace) -> Iterator[Watching]:
    """:class:`Watching`, whose trace is closed even if the run fails."""
    watch = Watching(args)
    try:
        yield watch
    except BaseException:
        if watch.trace is not None:
            watch.trace.close()
        raise


def _marks(done: SimulationResult | ClusterResult) -> list[Mark]:
    from simserve.simulation.cluster import ClusterResult
    from simserve.simulation.watching.plot import Mark

    if not isinstance(done, ClusterResult):
        return []
    marks = [Mark(time_s, "failure") for member in done.members for time_s in member.failed_at_s]
    marks += [
        Mark(each.time_s, "scale up" if each.wanted > each.replicas else "scale down")
        for each in done.decisions
        if each.wanted != each.replicas
    ]
    return sorted(marks)
