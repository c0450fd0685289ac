"""The decoding requests of an engine as a handful of numbers, so that a step costs the same for one or a thousand.

All of them advance by one token in every step. What a step needs to know (how many they are, the sum of their contexts,
how many need a new KV block, who samples the last token) changes only when one joins or leaves; a request is touched
then, and never in between.
"""

from __future__ import annotations

from heapq import heappop, heappush

from simserve.scheduling.request import Request


class DecodeSet:
    """Requests that get one token in every step; ``step`` is always the index of the step being planned.

    A request whose context was ``c`` tokens before step ``s`` has the constant offset ``c - s``: its context before any
    later step is offset + step, and it needs a new block whenever that is a multiple of the block size. Steps in which
    nobody decodes, such as those of prompts alone, are left out of the count: see :meth:`stall`.
    """

    __slots__ = ("_block_size", "_demand", "_end_steps", "_last_steps", "_offsets", "count", "ends", "stalled_steps")

    def __init__(self, block_size: int) -> None:
        self._block_size = block_size
        self.count = 0
        self.stalled_steps = 0
        self._offsets = 0
        self._last_steps = 0
        self._demand = [0] * block_size
        self.ends: dict[int, list[Request]] = {}
        """By step index, those that sample their last token there, and some that have left since."""
        self._end_steps: list[int] = []

    def join(self, request: Request, step: int) -> None:
        """``request``, all of whose known tokens but the last are computed, decodes from ``step`` on."""
        request.joined_step = step
        step -= self.stalled_steps
        offset = request.computed_tokens - step
        request.decode_offset = offset
        self.count += 1
        self._offsets += offset
        self._demand[-offset % self._block_size] += 1
        last_step = step + request.output_tokens - request.produced_tokens - 1
        request.last_step = last_step
        self._last_steps += last_step
        bucket = self.ends.get(last_step)
        if bucket is None:
            self.ends[last_step] = [request]
            heappush(self._end_steps, last_step)
        else:
            bucket.append(request)

    def leave(self, request: Request, step: int) -> None:
        """``request`` does not take part in ``step``; its progress is written back. Its bucket forgets it later."""
        offset = request.decode_offset
        assert offset is not None
        step -= self.stalled_steps
        self.count -= 1
        self._offsets -= offset
        self._last_steps -= request.last_step
        self._demand[-offset % self._block_size] -= 1
        request.computed_tokens = offset + step
        request.produced_tokens = offset + step + 1 - request.input_tokens
        request.decode_offset = None
        request.last_step = -1

    def pop_ended(self, last_step: int) -> list[Request]:
        """The requests that sample their last token in ``last_step``; they leave."""
        last = last_step - self.stalled_steps
        bucket = self.ends.pop(last, ())
        ended = []
        for request in bucket:
            if request.last_step == last:  # else it left before, and may even have come back
                self.leave(request, last_step + 1)
                ended.append(request)
        return ended

    def stall(self) -> None:
        """The step being planned gives nobody here a token."""
        self.stalled_steps += 1

    def context_tokens(self, step: int) -> int:
        """Sum of the contexts before ``step``."""
        return self._offsets + self.count * (step - self.stalled_steps)

    def remaining_tokens(self, step: int) -> int:
        """Tokens that the members will get from ``step`` on, all together."""
        return self._last_steps - self.count * (step - self.stalled_steps - 1)

    def remaining_tokens_of(self, request: Request, step: int) -> int:
        """Tokens that ``request``, a member, will get from ``step`` on."""
        return request.last_step - (step - self.stalled_steps) + 1

    def produced_tokens_of(self, request: Request, step: int) -> int:
        """Tokens that ``request``, a member, has got before ``step``."""
        return request.output_tokens - self.remaining_tokens_of(request, step)

    def blocks_needed(self, step: int) -> int:
        """New KV blocks that ``step`` needs."""
        return self._demand[(step - self.stalled_steps) % self._block_size]

    def needs_block(self, request: Request, step: int) -> bool:
        """Whether ``request``, a member, is among those that need a new block in ``step``."""
        assert request.decode_offset is not None
        return (request.decode_offset + step - self.stalled_steps) % self._block_size == 0

    def blocks_needed_over(self, step: int, steps: int) -> int:
        """New KV blocks for ``steps`` steps from ``step`` on: one each per member and ``block_size`` steps."""
        step -= self.stalled_steps
        cycles, rest = divmod(steps, self._block_size)
        needed = cycles * self.count
        for later in range(step, step + rest):
            needed += self._demand[later % self._block_size]
        return needed

    def steps_within(self, step: int, most_steps: int, free_blocks: int) -> int:
        """How many steps from ``step`` on, at most ``most_steps``, ``free_blocks`` free blocks suffice for."""
        step -= self.stalled_steps
        cycles, free_blocks = divmod(free_blocks, self.count)
        steps = cycles * self._block_size
        while steps < most_steps:
            free_blocks -= self._demand[(step + steps) % self._block_size]
            if free_blocks < 0:
                break
            steps += 1
        return min(steps, most_steps)

    def next_end(self) -> int:
        """The first step in which a member samples its last token; there must be one."""
        while self._end_steps[0] not in self.ends:
            heappop(self._end_steps)
        return self._end_steps[0] + self.stalled_steps
