"""A request of the obvious scheduler, whose progress is always written in it."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence

from simserve.scheduling import Status


class Request:
    """One sequence to prefill and decode.

    ``output_tokens`` is the length at which it ends. ``units`` identify what the prompt begins with, ``unit_tokens``
    tokens each (see :meth:`units_of_blocks`); empty means that nobody else has this prompt.

    What is not an argument is progress, written by the scheduler, or a time, written by whoever runs the plans. The
    steps that produced its tokens are ``token_runs``, pairs (first, last): one token a step, a new run after a pause.
    """

    __slots__ = (
        "adapter",
        "admission",
        "arrival_s",
        "cached_tokens",
        "computed_tokens", "delivered_tokens",
        "finish_s",
        "first_token_s",
        "input_tokens",
        "last_token_s",
        "number",
        "output_tokens",
        "preemptions",
        "priority",
        "produced_tokens",
        "request_id",
        "scheduled_s",
        "status",
        "token_runs",
        "unit_tokens",
        "units",
    )  # fmt: skip

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
        adapter: int = 0,
    ) -> None:
        self.request_id = request_id
        self.arrival_s = arrival_s
        self.input_tokens = input_tokens
        self.output_tokens = output_tokens
        self.units = units
        self.unit_tokens = unit_tokens
        self.priority = priority
        self.adapter = adapter
        self.status = Status.WAITING
        self.computed_tokens = 0
        self.produced_tokens = 0
        self.cached_tokens = 0
        self.preemptions = 0
        self.delivered_tokens = 0
        self.number = 0
        self.admission = 0
        self.token_runs: list[list[int]] = []
        self.scheduled_s = math.nan
        self.first_token_s = math.nan
        self.last_token_s = math.nan
        self.finish_s = math.nan

    @property
    def known_tokens(self) -> int:
        """Prompt plus tokens sampled so far, those of steps still running included."""
        return self.input_tokens + self.produced_tokens

    def units_of_blocks(self, block_size: int) -> Iterator[tuple[Hashable, int]]:
        """Identity and size in KV blocks of each cacheable unit, then, forever, its own single blocks.

        A unit stands for ``unit_tokens`` tokens, the last for what is left of the prompt; only full blocks count.
        Blocks after the units are known to this request alone: it can find them again only after a preemption.
        """
        blocks_per_unit = self.unit_tokens // block_size if self.units else 0
        full_blocks = self._identified_tokens(block_size) // block_size
        covered = 0
        for unit in self.units:
            blocks = min(blocks_per_unit, full_blocks - covered)
            if blocks <= 0:
                break
            yield (unit, blocks), blocks
            covered += blocks
        while True:
            yield (self.request_id, "own", covered), 1
            covered += 1

    def _identified_tokens(self, block_size: int) -> int:
        """Tokens that units can tell apart: prompt and answer; but a long last unit ends where the prompt does."""
        ends_with_prompt = len(self.units) * self.unit_tokens < self.input_tokens + self.unit_tokens
        if ends_with_prompt and self.unit_tokens > block_size:
            return self.input_tokens
        return self.input_tokens + self.output_tokens

    def note_token(self, step: int) -> None:
        """The step ``step`` samples a token of this request."""
        self.produced_tokens += 1
        if self.token_runs and self.token_runs[-1][1] == step - 1:
            self.token_runs[-1][1] = step
        else:
            self.token_runs.append([step, step])

    def take_back_token(self) -> None:
        """Undo the last :meth:`note_token`: the request was preempted in the step that would have sampled it."""
        self.produced_tokens -= 1
        run = self.token_runs[-1]
        run[1] -= 1
        if run[1] < run[0]:
            self.token_runs.pop()

    def __repr__(self) -> str:
        return f"Request({self.request_id!r}, in={self.input_tokens}, out={self.produced_tokens}/{self.output_tokens})"
