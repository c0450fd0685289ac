"""How much each member of a cluster holds, and what a router knows of it."""

from __future__ import annotations

import math
from array import array

import numpy as np
import numpy.typing as npt
import simpy

from simserve.simulation.arrivals import Alarm

Floats = npt.NDArray[np.float64]


class Loads:
    """``requests`` and ``tokens`` (of prompts and answers) that each member has been given and has not ended.

    What a router should look at are ``seen_requests`` and ``seen_tokens``, by the index of a member. They are the same
    arrays unless loads are reported only every ``staleness_s``; then they are those of the last report, at a whole
    multiple of it. Nobody reports while the cluster is empty. ``request_counts`` and ``seen_request_counts`` are the
    same memory again: one number of these is had for a fifth of what it costs to take it out of NumPy's array.
    """

    def __init__(self, env: simpy.Environment, members: int, staleness_s: float) -> None:
        self.request_counts = self.seen_request_counts = array("d", bytes(8 * members))
        self._token_counts = array("d", bytes(8 * members))
        self.requests: Floats = np.frombuffer(self.request_counts)
        self.tokens: Floats = np.frombuffer(self._token_counts)
        self.seen_requests, self.seen_tokens = self.requests, self.tokens
        self._env = env
        self._staleness_s = staleness_s
        self._reports = 0
        """As many multiples of the time between reports have passed when the next one comes."""
        self._report = Alarm(env, (self._on_report,), before_others=True)
        if staleness_s:
            self.seen_request_counts = array("d", bytes(8 * members))
            self.seen_requests, self.seen_tokens = np.frombuffer(self.seen_request_counts), np.zeros(members)

    @property
    def total_requests(self) -> int:
        return int(self.requests.sum())

    @property
    def total_tokens(self) -> int:
        return int(self.tokens.sum())

    def add(self, member: int, tokens: int) -> None:
        """``member`` was given a request of ``tokens`` tokens."""
        self.request_counts[member] += 1
        self._token_counts[member] += tokens
        if self._staleness_s and not self._report.is_set:
            self._set_report()

    def remove(self, member: int, tokens: int) -> None:
        """A request of ``tokens`` tokens has left ``member``."""
        self.request_counts[member] -= 1
        self._token_counts[member] -= tokens

    def _set_report(self) -> None:
        self._reports = max(self._reports, math.floor(self._env.now / self._staleness_s)) + 1
        self._report.set(self._reports * self._staleness_s)

    def _on_report(self, event: simpy.Event) -> None:
        np.copyto(self.seen_requests, self.requests)
        np.copyto(self.seen_tokens, self.tokens)
        if self.total_requests:
            self._set_report()
