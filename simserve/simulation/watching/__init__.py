"""Who looks at every run of every replica while they happen: a trace for Perfetto, series for a timeline."""

from __future__ import annotations

from simserve.simulation.watching.timeline import Timeline
from simserve.simulation.watching.trace import MOST_TRACE_EVENTS, ChromeTrace
from simserve.simulation.watching.watcher import MemberWatch, ReplicaWatch, Watcher

__all__ = ["MOST_TRACE_EVENTS", "ChromeTrace", "MemberWatch", "ReplicaWatch", "Timeline", "Watcher"]
