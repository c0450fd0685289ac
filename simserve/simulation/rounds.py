"""The same requests again and again at one engine, which keeps its prefix cache: a benchmark that is repeated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import simpy

from simserve.errors import WorkloadError
from simserve.scheduling import Request
from simserve.simulation.sources import Submit, call_at, end_s, requests_of
from simserve.workload import prefix_from_hits
from simserve.workload.workload import PrefixUnits, Workload


class Rounds:
    """Sends a workload ``rounds`` times, each round when the one before is answered.

    In a round ``users`` send the requests in turn, each one waiting for its answer; without, they are sent when due,
    counted from the round's start. Prompts are the same in every round, and nobody else's unless the workload says so:
    an engine with a prefix cache computes them once. Row ``i`` of round ``r`` has the id ``r * len(workload) + i``.
    Raises :class:`WorkloadError` for less than 1 round or user.
    """

    def __init__(self, workload: Workload, rounds: int, users: int | None = None) -> None:
        if rounds < 1 or (users is not None and users < 1):
            raise WorkloadError(f"{rounds} rounds of {users} users send no requests; give at least 1 of each")
        self.name = f"{workload.name}, {rounds} times"
        self._workload = workload if workload.prefix else replace(workload, prefix=_own_prefixes(workload))
        self._rounds, self._users = rounds, users

    def __len__(self) -> int:
        return self._rounds * len(self._workload)

    def start(self, env: simpy.Environment, submit: Submit) -> None:
        self._env, self._submit = env, submit
        self._round = -1
        call_at(env, 0.0, self._begin)

    def finished(self, requests: Sequence[Request]) -> None:
        for request in requests:
            self._unanswered -= 1
            ended_s = end_s(request, self._env)
            if self._unanswered == 0:
                if self._round + 1 < self._rounds:
                    call_at(self._env, ended_s, self._begin)
            elif self._users is not None:
                call_at(self._env, ended_s, self._send_next)

    def _begin(self, now_s: float) -> None:
        self._round += 1
        self._unanswered = len(self._workload)
        self._rest = requests_of(self._workload)
        if self._users is not None:
            for _ in range(self._users):
                self._send_next(now_s)
            return
        for due_s in self._workload.arrival_s.tolist():
            call_at(self._env, now_s + due_s, self._send_next)

    def _send_next(self, now_s: float) -> None:
        request = next(self._rest, None)
        if request is None:
            return
        assert isinstance(request.request_id, int)
        request.request_id += self._round * len(self._workload)
        request.arrival_s = now_s
        self._submit(request)


def _own_prefixes(workload: Workload) -> PrefixUnits:
    return prefix_from_hits(workload.input_tokens, np.zeros(len(workload), dtype=np.int64))
