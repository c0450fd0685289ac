"""A request as the scheduler sees it: lengths, identity of its prompt, and how far it has come."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from simserve.scheduling.kv_cache import BlockRun


class Status(Enum):
    """Where a request is in its life."""

    WAITING = "waiting"
    RUNNING = "running"
    PREEMPTED = "preempted"
    FINISHED = "finished"
    ABORTED = "aborted"


# Needed for every request, and a member of an enumeration is slow to look up.
WAITING, RUNNING, PREEMPTED, FINISHED, ABORTED = Status
NAN = math.nan

NONE = cast(list[Any], ())
"""Instead of lists that mostly stay empty: a request, or a plan, gets one of its own with the first thing in it."""


class Request:
    """One sequence to prefill and decode.

    ``output_tokens`` is the length at which it ends. ``units`` identify what the prompt begins with, ``unit_tokens``
    tokens each (see :meth:`unit_blocks`), and may go on with the answer, which is part of the next prompt of a session;
    empty means that nobody else has this prompt. Of two waiting requests, under
    a priority policy, the one with the smaller ``priority`` goes first. Requests of one ``session`` come from one user,
    those of one ``tenant`` are paid for by one; only routers look at these.

    What is not an argument is progress, written by the scheduler, or a time, written by whoever runs the plans. While
    ``decode_offset`` is set, ``computed_tokens`` and ``produced_tokens`` stand still: the decode set knows better.
    ``received_tokens`` are those of the prompt whose KV another engine has computed and sent.
    Whoever moves a request to another engine makes its answer so far part of the prompt; these are ``moved_tokens``.
    """

    __slots__ = (
        "admission", "allocated_tokens", "arrival_s", "cached_tokens", "computed_tokens", "decode_offset",
        "finish_s", "first_token_s", "input_tokens", "joined_step", "last_step", "last_token_s",
        "left_behind", "moved_tokens", "number", "output_tokens", "preemptions", "priority", "produced_tokens",
        "received_tokens", "request_id", "retries", "returned_step", "scheduled_s", "session", "status", "tenant",
        "unit_runs", "unit_tokens", "units",
    )  # fmt: skip

    adapter: int = 0
    """The number of the LoRA adapter that it asks for; see :class:`AdapterRequest`."""

    def __init__(
        self,
        request_id: Hashable,
        input_tokens: int,
        output_tokens: int,
        *,
        arrival_s: float = 0.0,
        units: Sequence[int] = (),
        unit_tokens: int = 0,
        priority: int = 0,
        session: Hashable = None,
    ) -> None:
        self.request_id = request_id
        self.arrival_s = arrival_s
        self.input_tokens = input_tokens
        self.output_tokens = output_tokens
        self.units = units
        self.unit_tokens = unit_tokens
        self.priority = priority
        self.session = session
        self.tenant = self.retries = self.moved_tokens = self.received_tokens = 0
        self.status = WAITING
        self.computed_tokens = self.allocated_tokens = self.produced_tokens = self.cached_tokens = 0
        self.preemptions = self.number = self.admission = 0
        self.decode_offset: int | None = None
        self.last_step = self.joined_step = self.returned_step = -1
        self.unit_runs: list[BlockRun] = NONE
        self.left_behind: BlockRun | None = None
        self.scheduled_s = self.first_token_s = self.last_token_s = self.finish_s = NAN

    @property
    def known_tokens(self) -> int:
        """Prompt plus tokens sampled so far, those of steps still running included."""
        return self.input_tokens + self.produced_tokens

    def unit_blocks(self, block_size: int, start: int = 0) -> Iterator[tuple[Hashable, int]]:
        """Identity and size in KV blocks of each unit from the ``start``-th on.

        A unit stands for ``unit_tokens`` tokens, the last for what is left; only full blocks count.
        """
        per_unit = self.unit_tokens // block_size
        left = self._identified_tokens(block_size) // block_size - start * per_unit
        for index in range(start, len(self.units)):
            blocks = min(per_unit, left)
            if blocks <= 0:
                return
            yield (self.units[index], blocks), blocks
            left -= blocks

    def total_unit_blocks(self, block_size: int) -> int:
        """KV blocks of all units together; blocks after them are known to this request alone."""
        return min(
            len(self.units) * (self.unit_tokens // block_size), self._identified_tokens(block_size) // block_size
        )

    def _identified_tokens(self, block_size: int) -> int:
        """Tokens that units can tell apart: those of the prompt, and of the answer if there are units for it.

        A last unit of several blocks in which the prompt ends stands for the prompt's end alone, as in traces.
        """
        if self.unit_tokens > block_size and (len(self.units) - 1) * self.unit_tokens < self.input_tokens:
            return self.input_tokens
        return self.input_tokens + self.output_tokens

    def __repr__(self) -> str:
        return f"Request({self.request_id!r}, in={self.input_tokens}, out={self.produced_tokens}/{self.output_tokens})"


class AdapterRequest(Request):
    """One that may ask for the LoRA adapter of a number from 1 up; others do without the place for it."""

    __slots__ = ("adapter",)

    def __init__(
        self,
        request_id: Hashable,
        input_tokens: int,
        output_tokens: int,
        *,
        arrival_s: float = 0.0,
        units: Sequence[int] = (),
        unit_tokens: int = 0,
        priority: int = 0,
        session: Hashable = None,
        adapter: int = 0,
    ) -> None:
        super().__init__(
            request_id,
            input_tokens,
            output_tokens,
            arrival_s=arrival_s,
            units=units,
            unit_tokens=unit_tokens,
            priority=priority,
            session=session,
        )
        self.adapter = adapter
