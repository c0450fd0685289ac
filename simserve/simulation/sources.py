"""Where requests come from: a workload as it is, users who wait for their answers, or conversations.

A source decides when each request is sent. Where that depends on answers, it hears of them through ``finished`` and
sends later, in a moment of its own: an engine that is just ending a step takes no requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt
import simpy

from simserve.errors import ConfigError, WorkloadError
from simserve.scheduling import AdapterRequest, Request
from simserve.simulation.arrivals import Alarm, Moment
from simserve.workload.adapters import units_of_adapter
from simserve.workload.sessions import Sessions
from simserve.workload.workload import Workload

Submit = Callable[[Request], None]
"""Takes a request whose ``arrival_s`` is now. One that cannot be served is reported as finished, not raised."""

ROWS_PER_BATCH = 4096
"""Rows turned into Python numbers at a time: fast, and a million requests need no million objects at once."""


class Source(Protocol):
    """Sends ``len(source)`` requests in all; their ids are whole numbers from 0 up, in the order of sending."""

    @property
    def name(self) -> str:
        """What the workload is called in every output."""
        ...

    def __len__(self) -> int: ...

    def start(self, env: simpy.Environment, submit: Submit) -> None:
        """Begin at time 0 of ``env``, from the first request again if this is not the first start."""
        ...

    def finished(self, requests: Sequence[Request]) -> None:
        """These have had their last token, or were rejected. Must not call ``submit`` at once."""
        ...


class OpenLoop:
    """Sends the requests of a workload when they are due, whatever becomes of them."""

    def __init__(self, workload: Workload) -> None:
        self.name = workload.name
        self.has_adapters = workload.adapters is not None
        self._workload = workload

    def __len__(self) -> int:
        return len(self._workload)

    def start(self, env: simpy.Environment, submit: Submit) -> None:
        self._submit = submit
        self._rest = requests_of(self._workload)
        self._due = next(self._rest)
        self._alarm = Alarm(env, (self._send,), before_others=True)
        self._alarm.set(self._due.arrival_s)

    def finished(self, requests: Sequence[Request]) -> None:
        """Of no interest."""

    def _send(self, event: simpy.Event) -> None:
        now_s = self._due.arrival_s
        self._submit(self._due)
        for request in self._rest:
            if request.arrival_s > now_s:
                # One event per arrival, each setting up the next, is cheaper than a process that waits.
                self._due = request
                self._alarm.set(request.arrival_s)
                return
            self._submit(request)


class ClosedLoop:
    """``users`` send the requests of a workload in turn, each one waiting for its answer before its next request.

    A user who has been answered thinks for ``think_s`` (one time, or one per request), takes the next request of the
    workload and sends it, though not before it is due. So with all due at 0 this is a closed loop, and with arrival
    times and no thinking it is ``vllm bench serve --max-concurrency``. Users come one by one, evenly over
    ``stagger_s``, lest all prompts are computed at once, which users do not do. A request's arrival is when it was
    sent: time spent waiting for a user is nobody's latency. Raises :class:`WorkloadError` for less than 1 user.
    """

    def __init__(
        self, workload: Workload, users: int, think_s: float | npt.NDArray[np.float64] = 0.0, stagger_s: float = 0.0
    ) -> None:
        if users < 1:
            raise WorkloadError(f"{users} users send no requests; give at least 1")
        if not 0 <= stagger_s < float("inf"):
            raise WorkloadError(f"users cannot come over {stagger_s:g} seconds; give 0 or more")
        self.name = workload.name
        self.has_adapters = workload.adapters is not None
        self._workload = workload
        self._users = min(users, len(workload))
        self._think_s = np.broadcast_to(think_s, len(workload))
        self._stagger_s = stagger_s

    def __len__(self) -> int:
        return len(self._workload)

    def start(self, env: simpy.Environment, submit: Submit) -> None:
        self._env, self._submit = env, submit
        self._rest = requests_of(self._workload)
        for user in range(self._users):
            call_at(env, self._stagger_s * user / self._users, self._send_next)

    def finished(self, requests: Sequence[Request]) -> None:
        for request in requests:
            think_s = float(self._think_s[cast(int, request.request_id)])
            call_at(self._env, end_s(request, self._env) + think_s, self._send_next)

    def _send_next(self, now_s: float) -> None:
        request = next(self._rest, None)
        if request is None:
            return
        request.arrival_s = max(request.arrival_s, now_s)
        if request.arrival_s > now_s:
            call_at(self._env, request.arrival_s, lambda _: self._submit(request))
        else:
            self._submit(request)


class Conversations:
    """Sends the turns of sessions: each after the answer to the one before, and the time its user thinks.

    With ``users``, at most so many sessions are open at once: who ends one thinks and begins the next, though not
    before it is due. A turn that was rejected counts as answered, so that no turn is left out silently. Raises
    :class:`WorkloadError` for less than 1 user.
    """

    def __init__(self, sessions: Sessions, users: int | None = None) -> None:
        if users is not None and users < 1:
            raise WorkloadError(f"{users} users hold no conversations; give at least 1")
        self.name = sessions.name
        self.has_adapters = sessions.adapters is not None
        self._sessions = sessions
        self._users = users
        self._session_of = np.repeat(np.arange(len(sessions.start_s)), np.diff(sessions.offsets))
        self._is_last = np.zeros(len(sessions), dtype=np.bool_)
        self._is_last[sessions.offsets[1:] - 1] = True

    def __len__(self) -> int:
        return len(self._sessions)

    def start(self, env: simpy.Environment, submit: Submit) -> None:
        self._env, self._submit = env, submit
        self._sent = 0
        self._turn_of: dict[int, int] = {}
        self._unopened = iter(range(len(self._sessions.start_s)))
        if self._users is None:
            env.process(self._open_when_due(env))
            return
        for _ in range(min(self._users, len(self._sessions.start_s))):
            call_at(env, 0.0, self._open_next)

    def finished(self, requests: Sequence[Request]) -> None:
        for request in requests:
            turn = self._turn_of.pop(cast(int, request.request_id))
            next_s = end_s(request, self._env) + float(self._sessions.think_s[turn])
            if not self._is_last[turn]:
                call_at(self._env, next_s, partial(self._send, turn + 1))
            elif self._users is not None:
                call_at(self._env, next_s, self._open_next)

    def _open_when_due(self, env: simpy.Environment) -> simpy.events.ProcessGenerator:
        for session in self._unopened:
            due_s = float(self._sessions.start_s[session])
            if due_s > env.now:
                yield Moment(env, due_s)
            self._send(int(self._sessions.offsets[session]), due_s)

    def _open_next(self, now_s: float) -> None:
        session = next(self._unopened, None)
        if session is None:
            return
        first = int(self._sessions.offsets[session])
        due_s = float(self._sessions.start_s[session])
        if due_s > now_s:
            call_at(self._env, due_s, partial(self._send, first))
        else:
            self._send(first, now_s)

    def _send(self, turn: int, now_s: float) -> None:
        sessions, row = self._sessions, self._sent
        session = int(self._session_of[turn])
        self._sent += 1
        self._turn_of[row] = turn
        request = Request(
            row,
            int(sessions.input_tokens[turn]),
            int(sessions.output_tokens[turn]),
            arrival_s=now_s,
            units=sessions.units(session, turn),
            unit_tokens=sessions.unit_tokens,
            session=session,
        )
        if sessions.adapters is not None:
            request = with_adapter(request, int(sessions.adapters[session]))
        self._submit(request)


def call_at(env: simpy.Environment, time_s: float, action: Callable[[float], None]) -> None:
    """Call ``action`` with ``time_s`` when it comes; at the earliest after what happens now is over."""
    Moment(env, time_s).callbacks.append(lambda _: action(time_s))


def end_s(request: Request, env: simpy.Environment) -> float:
    """When ``request`` was answered; now if it was rejected and never ran."""
    finish_s = request.finish_s
    return finish_s if finish_s == finish_s else float(env.now)  # NaN is not equal to itself


def check_adapters(source: Source, may_ask: bool) -> None:
    """Raise :class:`ConfigError` if requests of ``source`` ask for adapters and engines have none."""
    if getattr(source, "has_adapters", False) and not may_ask:
        raise ConfigError(f"requests of {source.name} ask for LoRA adapters: add --enable-lora to every engine")


def requests_of(workload: Workload) -> Iterator[Request]:
    """Rows as requests, made as they are needed."""
    rows = _plain_requests_of(workload)
    return rows if workload.adapters is None else _with_adapters(rows, workload.adapters)


def with_adapter(request: Request, adapter: int) -> Request:
    """``request``, which nobody has seen yet, asking for an adapter; it shares its prompt only with those who do."""
    return AdapterRequest(
        request.request_id,
        request.input_tokens,
        request.output_tokens,
        arrival_s=request.arrival_s,
        units=units_of_adapter(request.units, adapter) if adapter else request.units,
        unit_tokens=request.unit_tokens,
        session=request.session,
        adapter=adapter,
    )


def _with_adapters(requests: Iterator[Request], adapters: npt.NDArray[np.int64]) -> Iterator[Request]:
    return map(with_adapter, requests, adapters.tolist())


def _plain_requests_of(workload: Workload) -> Iterator[Request]:
    prefix = workload.prefix
    for start in range(0, len(workload), ROWS_PER_BATCH):
        rows = slice(start, start + ROWS_PER_BATCH)
        columns = (workload.arrival_s[rows], workload.input_tokens[rows], workload.output_tokens[rows])
        for row, (arrival_s, inputs, outputs) in enumerate(zip(*(c.tolist() for c in columns), strict=True), start):
            if prefix is None:
                yield Request(row, inputs, outputs, arrival_s=arrival_s)
            else:
                units, unit_tokens = prefix.of(row), prefix.unit_tokens
                yield Request(row, inputs, outputs, arrival_s=arrival_s, units=units, unit_tokens=unit_tokens)
