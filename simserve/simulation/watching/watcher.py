"""The seam between runs and those who look at them, the same for one engine and for a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from simserve.scheduling import Request, Scheduler
from simserve.simulation.replica import Run, StepObserver

if TYPE_CHECKING:
    from simserve.simulation.cluster.member import Member

ONLY = "replica"
"""Name of the replica of a run without a cluster."""


class Watcher(Protocol):
    """Told of what has happened, in order of simulated time for each replica. Must not change anything."""

    def ran(self, index: int, name: str, scheduler: Scheduler, run: Run) -> None:
        """Replica ``name``, number ``index`` of all, is through with ``run``; ``scheduler`` is as it is after it."""
        ...

    def ended(self, index: int, request: Request) -> None:
        """``request`` got its last token from replica ``index``."""
        ...

    def transferred(self, link: str, request: Request, size_bytes: float, start_s: float, end_s: float) -> None:
        """The KV of ``request`` will be on ``link`` from ``start_s`` to ``end_s``, if nobody fails."""
        ...

    def started(self, index: int, name: str, weight_bytes: int, times_s: tuple[float, float, float]) -> None:
        """Replica ``name`` is ready at the last of ``times_s``; its weights came from the first to the second."""
        ...


class ReplicaWatch:
    """Has ``watchers`` see the runs of a single replica, after ``observer``."""

    def __init__(self, observer: StepObserver, scheduler: Scheduler, watchers: Sequence[Watcher]) -> None:
        self._observer = observer
        self._scheduler = scheduler
        self._watchers = watchers

    def run_done(self, run: Run, finished: list[Request]) -> None:
        """See :class:`simserve.simulation.replica.StepObserver`."""
        self._observer.run_done(run, finished)
        for watcher in self._watchers:
            watcher.ran(0, ONLY, self._scheduler, run)
            for request in finished:
                watcher.ended(0, request)


class MemberWatch:
    """Has ``watchers`` see the runs of a cluster's members; see the cluster's ``MemberObserver``."""

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self._watchers = watchers

    def ran(self, member: Member, run: Run) -> None:
        for watcher in self._watchers:
            watcher.ran(member.index, member.name, member.scheduler, run)

    def ended(self, member: Member, requests: list[Request]) -> None:
        for watcher in self._watchers:
            for request in requests:
                watcher.ended(member.index, request)

    def refused(self, member: Member, request: Request) -> None:
        """Of no interest: it never ran."""

    def handed_over(self, member: Member, request: Request) -> None:
        """Of no interest: it ends elsewhere."""
