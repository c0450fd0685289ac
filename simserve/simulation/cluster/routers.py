"""Who gets a request: routers by name, and how to bring one's own.

A router knows members' loads as they were last reported (``Loads.seen_*``) and what it remembers itself.
"""

from __future__ import annotations

import inspect
import random
from abc import ABC, abstractmethod
from array import array
from bisect import bisect_right
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from simserve.errors import ConfigError
from simserve.scheduling import Request
from simserve.scheduling.adapters import AdapterVllmV1
from simserve.simulation.cluster.loads import Floats, Loads
from simserve.simulation.cluster.member import Member
from simserve.simulation.plugins import module_at

MOST_REMEMBERED = 1 << 18
"""Beginnings of prompts, or sessions, that a router remembers: the last ones, for a server may run for years."""


class Pool:
    """Members among whom a router may choose, at least one, in order of their ``index``."""

    def __init__(self, members: list[Member]) -> None:
        self.members = members
        self.index_list = array("q", [member.index for member in members])
        """The same as :attr:`indexes`; one of these is had for less than out of NumPy's array, or from the member."""
        self._indexes: npt.NDArray[np.intp] | None = None

    @property
    def indexes(self) -> npt.NDArray[np.intp]:
        """Of the members, to look up their loads with."""
        if self._indexes is None:
            self._indexes = np.array([member.index for member in self.members])
        return self._indexes


class Router(ABC):
    """Chooses by what a subclass likes; ``rng`` is for all that is left to chance. ``options`` have its values."""

    defaults: ClassVar[Mapping[str, float]] = {}
    """Options of this router, with the values that they have where the user says nothing."""

    def __init__(self, loads: Loads, rng: random.Random, options: Mapping[str, float]) -> None:
        self.loads = loads
        self.rng = rng
        self.options = {**self.defaults, **options}

    @abstractmethod
    def choose(self, request: Request, pool: Pool) -> Member:
        """The member of ``pool`` that gets ``request``."""

    def forget(self, member: Member) -> None:
        """``member`` has lost all it had cached."""
        return None

    def least(self, scores: Floats, pool: Pool) -> Member:
        """The member of the lowest of ``scores``, one for each in ``pool``; chance decides between equals."""
        best = np.flatnonzero(scores == scores.min())
        return pool.members[int(best[0] if len(best) == 1 else best[int(self.rng.random() * len(best))])]


class RoundRobin(Router):
    """One after the other."""

    _last = -1

    def choose(self, request: Request, pool: Pool) -> Member:
        members = pool.members
        place = bisect_right(members, self._last, key=_index)
        member = members[place if place < len(members) else 0]
        self._last = member.index
        return member


class RandomChoice(Router):
    """Anybody."""

    def choose(self, request: Request, pool: Pool) -> Member:
        members = pool.members
        return members[int(self.rng.random() * len(members))]


class LeastRequests(Router):
    """Who has the fewest requests."""

    def choose(self, request: Request, pool: Pool) -> Member:
        return self.least(self.loads.seen_requests[pool.indexes], pool)


class LeastTokens(Router):
    """Who has the fewest tokens, prompts and answers, of requests that have not ended."""

    def choose(self, request: Request, pool: Pool) -> Member:
        return self.least(self.loads.seen_tokens[pool.indexes], pool)


class PowerOfTwo(Router):
    """Of two at random, the one that has fewer requests (Mitzenmacher, "The power of two choices", 2001)."""

    def choose(self, request: Request, pool: Pool) -> Member:
        members, rng = pool.members, self.rng
        count = len(members)
        if count == 1:
            return members[0]
        first = int(rng.random() * count)
        second = int(rng.random() * (count - 1))
        if second >= first:
            second += 1
        requests, indexes = self.loads.seen_request_counts, pool.index_list
        return members[second if requests[indexes[second]] < requests[indexes[first]] else first]


class PrefixAware(Router):
    """Who has the least to do for this request and before it.

    That is the tokens of its prompt that are not cached there, ``prefix_weight`` times, and the tokens it has already.
    A member is asked for its cache only if it was given a request that began alike.
    """

    defaults: ClassVar[Mapping[str, float]] = {"prefix_weight": 1.0}

    def __init__(self, loads: Loads, rng: random.Random, options: Mapping[str, float]) -> None:
        super().__init__(loads, rng, options)
        self._given: dict[Hashable, set[int]] = {}
        """By what prompts begin with: members that were given such a one."""

    def choose(self, request: Request, pool: Pool) -> Member:
        scores = self.loads.seen_tokens[pool.indexes]
        given = self._given_alike(request) if request.units else set()
        if given:
            weight = self.options["prefix_weight"]
            for place, member in enumerate(pool.members):
                if member.index in given:
                    scores[place] -= weight * cached_tokens(member, request)
        chosen = self.least(scores, pool)
        given.add(chosen.index)
        return chosen

    def _given_alike(self, request: Request) -> set[int]:
        given = self._given.get(request.units[0])
        if given is None:
            given = self._given[request.units[0]] = set()
            if len(self._given) > MOST_REMEMBERED:
                del self._given[next(iter(self._given))]
        return given

    def forget(self, member: Member) -> None:
        for given in self._given.values():
            given.discard(member.index)


class SessionAffinity(Router):
    """Whoever had the session's request before, as long as it is there; else who has the fewest requests."""

    def __init__(self, loads: Loads, rng: random.Random, options: Mapping[str, float]) -> None:
        super().__init__(loads, rng, options)
        self._home: dict[Hashable, Member] = {}

    def choose(self, request: Request, pool: Pool) -> Member:
        session = request.session
        home = self._home.get(session)
        if session is not None and home is not None:
            place = bisect_right(pool.members, home.index, key=_index) - 1
            if place >= 0 and pool.members[place] is home:
                return home
        chosen = self.least(self.loads.seen_requests[pool.indexes], pool)
        if session is not None:
            self._home[session] = chosen
            if len(self._home) > MOST_REMEMBERED:
                del self._home[next(iter(self._home))]
        return chosen


class Weighted(Router):
    """At random, in the proportion of the weights of their groups."""

    def __init__(self, loads: Loads, rng: random.Random, options: Mapping[str, float]) -> None:
        super().__init__(loads, rng, options)
        self._pool: Pool | None = None
        self._cumulative: list[float] = []

    def choose(self, request: Request, pool: Pool) -> Member:
        if pool is not self._pool:
            self._pool = pool
            self._cumulative = list(accumulate(member.group.spec.weight for member in pool.members))
        place = bisect_right(self._cumulative, self.rng.random() * self._cumulative[-1])
        return pool.members[min(place, len(pool.members) - 1)]


class Mix(Router):
    """The highest sum of scores from 0 to 1, each times its weight in the options.

    ``prefix`` is the share of the prompt that is cached, ``requests`` and ``tokens`` are how few a member has, between
    the most and the fewest of all, and ``kv`` is the share of its KV blocks that is free, now. ``adapter`` says how
    near the request's LoRA adapter is, now: see :func:`nearness_of_adapter`.
    """

    defaults: ClassVar[Mapping[str, float]] = {
        "prefix": 1.0, "requests": 1.0, "tokens": 0.0, "kv": 0.0, "adapter": 0.0
    }  # fmt: skip

    def choose(self, request: Request, pool: Pool) -> Member:
        weights = self.options
        scores = weights["requests"] * _fewness(self.loads.seen_requests[pool.indexes])
        scores += weights["tokens"] * _fewness(self.loads.seen_tokens[pool.indexes])
        if weights["prefix"] and request.units:
            cached = [cached_tokens(member, request) for member in pool.members]
            scores += weights["prefix"] * np.array(cached) / request.input_tokens
        if weights["kv"]:
            free = [
                member.scheduler.blocks.free_blocks / member.scheduler.blocks.usable_blocks for member in pool.members
            ]
            scores += weights["kv"] * np.array(free)
        if weights["adapter"] and request.adapter:
            near = [nearness_of_adapter(member, request.adapter) for member in pool.members]
            scores += weights["adapter"] * np.array(near)
        return self.least(-scores, pool)


ROUTERS: dict[str, type[Router]] = {
    "round-robin": RoundRobin,
    "random": RandomChoice,
    "least-requests": LeastRequests,
    "least-tokens": LeastTokens,
    "power-of-two": PowerOfTwo,
    "prefix-aware": PrefixAware,
    "session-affinity": SessionAffinity,
    "weighted": Weighted,
    "mix": Mix,
}
"""Routers by the name that ``--router`` takes."""


def cached_tokens(member: Member, request: Request) -> int:
    """Tokens of the prompt of ``request`` that ``member`` would find in its prefix cache now."""
    blocks = member.scheduler.blocks
    return blocks.find(request).blocks * blocks.block_size


def nearness_of_adapter(member: Member, adapter: int) -> float:
    """1 if running requests use ``adapter``, 0.8 if there is room for it beside theirs, 0.6 if others wait for it.

    As the scorer for LoRA affinity of Kubernetes' Gateway API inference extension has it.
    """
    scheduler = member.scheduler
    if not isinstance(scheduler, AdapterVllmV1):
        return 0.0
    running, waiting = scheduler.running_adapters, scheduler.lines.adapters
    if adapter in running:
        return 1.0
    if len({*running, *waiting, adapter}) <= scheduler.lines.most:
        return 0.8
    return 0.6 if adapter in waiting else 0.0


def router_named(name: str, options: Iterable[str] = ()) -> type[Router]:
    """The router that ``name`` means: one that ships, or ``file.py:Class``, if it has these ``options``.

    Raises :class:`ConfigError` in a sentence that names the field.
    """
    router = ROUTERS.get(name) or _own_router(name)
    for option in options:
        if option not in router.defaults:
            known = ", ".join(router.defaults) or "none"
            raise ConfigError(f"router.options.{option} is no option of router {name}, which has: {known}")
    return router


def _own_router(name: str) -> type[Router]:
    path, colon, class_name = name.rpartition(":")
    if not colon:
        raise ConfigError(
            f"router.policy: unknown router '{name}'; choose one of {', '.join(ROUTERS)}, or name an own one as "
            "file.py:Class"
        )
    router = getattr(module_at(Path(path), "router"), class_name, None)
    if not (inspect.isclass(router) and issubclass(router, Router) and not inspect.isabstract(router)):
        raise ConfigError(
            f"router.policy: {path} has no class {class_name} that derives from simserve.simulation.cluster.Router "
            "and has a method choose(self, request, pool)"
        )
    return router


def _fewness(values: Floats) -> Floats:
    spread = values.max() - values.min()
    few: Floats = (values.max() - values) / spread if spread else np.ones_like(values)
    return few


def _index(member: Member) -> int:
    return member.index


def pool_of(members: Sequence[Member]) -> Pool | None:
    """``members`` to choose among; None if there are none."""
    return Pool(list(members)) if members else None
