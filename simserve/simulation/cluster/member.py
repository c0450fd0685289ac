"""A replica as its cluster knows it: what it holds, whether it takes requests, and what it has done so far."""

from __future__ import annotations

import math
from array import array
from collections.abc import Hashable
from enum import Enum
from typing import ClassVar, Protocol

import simpy

from simserve.errors import RequestError
from simserve.scheduling import Request, Scheduler
from simserve.simulation.cluster.groups import Group
from simserve.simulation.cluster.recorder import GroupRecorder
from simserve.simulation.features.build import new_replica
from simserve.simulation.features.counts import Counts
from simserve.simulation.front_end import FrontEnd
from simserve.simulation.lockstep import LockStep
from simserve.simulation.replica import Run
from simserve.simulation.simulate import new_front_end


class State(Enum):
    """Of a member. Only who is ready gets requests; who drains ends those it has."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    DOWN = "down"
    STOPPED = "stopped"


class Handover(Protocol):
    """What follows a prefill member; see :class:`simserve.simulation.cluster.handover.Handover`."""

    def goes_on(self, request: Request) -> bool: ...

    def uncut(self, request: Request) -> None: ...

    def take(self, member: Member, request: Request, run: Run) -> None: ...


class MemberObserver(Protocol):
    """Who wants to know what became of a member's requests."""

    def ended(self, member: Member, requests: list[Request]) -> None:
        """These got their last token from ``member``. Must not give it new ones at once."""
        ...

    def refused(self, member: Member, request: Request) -> None:
        """``request`` has a prompt that ``member`` can never hold."""
        ...

    def handed_over(self, member: Member, request: Request) -> None:
        """``request`` has its first token from ``member``, which computes prompts alone."""
        ...


class RunObserver(MemberObserver, Protocol):
    """Who wants to know of each of a member's runs, too."""

    def ran(self, member: Member, run: Run) -> None:
        """``member`` is through with ``run``."""
        ...


class Work:
    """For how long each member's engine has worked, and its steps: all in one place, for every run adds to it."""

    def __init__(self) -> None:
        self.busy_s = array("d")
        self.steps = array("q")

    def add_member(self) -> None:
        self.busy_s.append(0.0)
        self.steps.append(0)


class Member:
    """The rank with number ``index`` of all, which is number ``number`` of those of ``group``.

    A replica has one rank or more. A member that fails or is stopped comes back as a new engine: nothing is cached.
    ``may_halt`` as for a replica; ``is_replaceable`` if somebody may start it again once it is stopped. ``mates`` are
    those ranks of its replica that are there already, which ``lock_step`` holds together if they share experts.
    """

    __slots__ = (
        "_counts", "_env", "_front_end", "_front_end_busy_s", "_least_free_blocks", "_lock_step", "_may_halt",
        "_observers", "_recorder", "_run_observers", "_work", "failed_at_s", "group", "handover", "held", "index",
        "is_replaceable", "lives", "mates", "most_tokens", "number", "replica", "scheduler", "state",
        "wasted_prefill_tokens",
    )  # fmt: skip

    list_decodes: ClassVar[bool] = False
    """As for a replica."""

    def __init__(
        self,
        env: simpy.Environment,
        index: int,
        number: int,
        group: Group,
        recorder: GroupRecorder,
        *,
        may_halt: bool,
        is_replaceable: bool,
        counts: Counts,
        work: Work,
        mates: list[Member],
        lock_step: LockStep | None = None,
    ) -> None:
        self.index = index
        self.number = number
        self.group = group
        self.state = State.READY
        self.is_replaceable = is_replaceable
        self.mates = mates
        """The ranks of its replica, itself included: they fail together."""
        mates.append(self)
        self.handover: Handover | None = None
        """Where requests go after their first token."""
        self.held: dict[Hashable, int] = {}
        """Ids of requests it was given and that have not ended, and with how many tokens they count."""
        self.failed_at_s: list[float] = []
        self.wasted_prefill_tokens = 0
        """Prompt tokens computed in steps that ended, for requests that then lost them by a failure."""
        self.lives: list[tuple[float, float | None]] = []
        """From when to when its devices were taken; None: to the end."""
        self.most_tokens = 0
        self._env = env
        self._recorder = recorder
        self._may_halt = may_halt
        self._counts = counts
        self._lock_step = lock_step
        self._work = work
        work.add_member()
        self._observers: tuple[MemberObserver, ...] = ()
        self._run_observers: tuple[RunObserver, ...] = ()
        self._least_free_blocks = group.setup.limits.num_blocks - 1
        self._front_end_busy_s = 0.0
        self._build()

    @property
    def name(self) -> str:
        """``fast/3``: unique in the cluster; ``fast/3.1`` is the second rank of that one."""
        replica, rank = divmod(self.number, self.group.ranks)
        return f"{self.group.name}/{replica}.{rank}" if self.group.ranks > 1 else f"{self.group.name}/{replica}"

    @property
    def busy_s(self) -> float:
        """For how long its engine has worked."""
        return self._work.busy_s[self.index]

    @property
    def steps(self) -> int:
        return self._work.steps[self.index]

    @property
    def failures(self) -> int:
        """How often it has failed."""
        return len(self.failed_at_s)

    @property
    def peak_kv_blocks(self) -> int:
        """Most KV blocks in use after any step."""
        least = min(self._least_free_blocks, self.scheduler.least_free_blocks)
        return self.group.setup.limits.num_blocks - 1 - least

    @property
    def ingesting_requests(self) -> int:
        """Requests that its front end has and its engine does not yet."""
        return self._front_end.ingesting_requests if self._front_end else 0

    @property
    def front_end_busy_s(self) -> float:
        """For how long the busiest process of its front end has worked."""
        return self._front_end_busy_s + (self._front_end.busy_s if self._front_end else 0.0)

    def observe(self, observer: MemberObserver) -> None:
        self._observers += (observer,)

    def observe_runs(self, observer: RunObserver) -> None:
        self._run_observers += (observer,)
        self.observe(observer)

    def submit(self, request: Request) -> None:
        """Take ``request`` now."""
        if self._front_end is not None:
            self._front_end.submit(request)
            return
        try:
            self.replica.submit(request)
        except RequestError:
            self._refuse(request)

    def abort(self, request_id: Hashable) -> None:
        """Drop a request that it was given; its KV blocks are free when the next step is planned, at the latest."""
        (self._front_end or self.replica).abort(request_id)

    def run_done(self, run: Run, finished: list[Request]) -> None:
        """See :class:`simserve.simulation.replica.StepObserver`."""
        index, work, recorder = self.index, self._work, self._recorder
        work.busy_s[index] += run.end_s - run.start_s
        work.steps[index] += run.plan.repeat
        recorder.member = index
        if self.handover is not None and finished:
            finished = self._hand_over(self.handover, run, finished)
        recorder.run_done(run, finished)
        for observer in self._run_observers:
            observer.ran(self, run)
        if finished:
            for each in self._observers:
                each.ended(self, finished)

    def _hand_over(self, handover: Handover, run: Run, finished: list[Request]) -> list[Request]:
        """Those of ``finished`` that have all their tokens now; the others go on elsewhere."""
        going_on = [request for request in finished if handover.goes_on(request)]
        for request in finished:
            if request not in going_on:
                handover.uncut(request)
        for request in going_on:
            request.finish_s = math.nan
            for observer in self._observers:
                observer.handed_over(self, request)
            handover.take(self, request, run)
        return [request for request in finished if request not in going_on]

    def take_devices(self) -> None:
        """From now on its devices are paid for."""
        self.lives.append((self._env.now, None))

    def release_devices(self) -> None:
        """From now on they are not."""
        self.lives[-1] = (self.lives[-1][0], self._env.now)

    def halt(self) -> list[Request]:
        """Fail now: whoever was here, in order of coming in, with the tokens that had come out."""
        self.failed_at_s.append(self._env.now)
        requests = self.replica.halt()
        for request in requests:
            self.wasted_prefill_tokens += min(max(request.computed_tokens, 0), request.input_tokens)
        if self._front_end is not None:
            self._front_end_busy_s += self._front_end.busy_s
            requests += self._front_end.halt()
        self._least_free_blocks = min(self._least_free_blocks, self.scheduler.least_free_blocks)
        self._build()
        return requests

    def renew(self) -> None:
        """Start over with an empty cache; nothing may be held."""
        self._least_free_blocks = min(self._least_free_blocks, self.scheduler.least_free_blocks)
        if self._front_end is not None:
            self._front_end_busy_s += self._front_end.busy_s
        self._build()

    def _build(self) -> None:
        setup = self.group.setup
        self.scheduler: Scheduler = setup.new_scheduler()
        self.most_tokens = self.scheduler.most_tokens
        self._front_end: FrontEnd | None = new_front_end(setup, self._env, self)
        self.replica = new_replica(
            setup,
            self._env,
            self.scheduler,
            self._front_end or self,
            self._counts,
            list_decodes=self.list_decodes,
            may_halt=self._may_halt,
            lock_step=self._lock_step,
            rank=self.number % self.group.ranks,
        )
        if self._front_end is not None:
            self._front_end.connect(self.replica, self._admit)

    def _admit(self, request: Request) -> None:
        try:
            self.replica.submit(request)
        except RequestError:
            self._refuse(request)

    def _refuse(self, request: Request) -> None:
        for observer in self._observers:
            observer.refused(self, request)
