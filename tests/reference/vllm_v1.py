"""vLLM V1's scheduler, the obvious way: every step visits every request (``vllm/v1/core/sched/scheduler.py``, 0.19).

No prefill or decode phases: in each step every request may catch up to the tokens it knows, running requests first
and in order, within one token budget; waiting ones after, first come first served, only if nobody was preempted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable

from reference.blocks import KVBlocks
from reference.plan import PrefillChunk, StepPlan
from reference.request import Request
from simserve.errors import RequestError
from simserve.scheduling import SchedulerLimits, Status


class Scheduler:
    """Decides what each step computes. Knows no clock: callers run the plan and say when it is complete.

    ``schedule`` may be called again before ``complete`` of the plan before (asynchronous scheduling): tokens of
    running steps count as known, and an end by length is foreseen.
    """

    def __init__(self, limits: SchedulerLimits) -> None:
        self.limits = limits
        self.blocks = KVBlocks(limits.num_blocks, limits.block_size, limits.prefix_caching)
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        self.steps = 0
        self.least_free_blocks = self.blocks.usable_blocks
        self.added = 0
        self.admissions = 0
        self._requests: dict[Hashable, Request] = {}

    @property
    def has_requests(self) -> bool:
        return bool(self._requests)

    def add(self, request: Request) -> None:
        """Queue ``request``; its answer is cut at the longest sequence the engine can hold.

        Raises :class:`RequestError` if the prompt alone is longer than that.
        """
        most_tokens = min(self.limits.max_model_len, self.blocks.usable_blocks * self.limits.block_size)
        if request.input_tokens >= most_tokens:
            raise RequestError(
                f"request {request.request_id} has {request.input_tokens} prompt tokens; "
                f"this engine holds at most {most_tokens} with the answer: shorten it or raise --max-model-len"
            )
        request.output_tokens = min(request.output_tokens, most_tokens - request.input_tokens)
        self.added += 1
        request.number = self.added
        self._requests[request.request_id] = request
        self.waiting.append(request)

    def abort(self, request_id: Hashable) -> Request | None:
        """Forget a request and free its blocks at once; None if it has ended already."""
        request = self._requests.pop(request_id, None)
        if request is None:
            return None
        if request.status is Status.RUNNING:
            self.running.remove(request)
        else:
            self.waiting.remove(request)
        self.blocks.free(request)
        request.status = Status.ABORTED
        return request

    def schedule(self) -> StepPlan:
        """Plan the next step; an empty plan if nothing can run."""
        plan = StepPlan(self.steps)
        budget = self._schedule_running(plan, self.limits.max_num_batched_tokens)
        if not plan.preempted:
            self._schedule_waiting(plan, budget)
        if not plan.is_empty:
            self.steps += 1
            self.least_free_blocks = min(self.least_free_blocks, self.blocks.free_blocks)
        return plan

    def complete(self, plan: StepPlan) -> list[Request]:
        """The step has run: end the requests whose last token it sampled, and free their blocks."""
        finished = [
            request
            for request in plan.sampled
            if request.produced_tokens >= request.output_tokens
            and request.token_runs[-1][1] == plan.index
            and request.status is not Status.ABORTED
        ]
        finished.sort(key=lambda request: request.admission)
        for request in finished:
            self._finish(request)
        return finished

    def _schedule_running(self, plan: StepPlan, budget: int) -> int:
        index = 0
        while index < len(self.running) and budget > 0:
            request = self.running[index]
            tokens = self._tokens_wanted(request, request.computed_tokens, budget)
            if tokens > 0:
                index, budget = self._make_room(plan, request, tokens, index, budget)
                if request.status is Status.PREEMPTED:
                    continue  # vLLM stops here, and by priority could do so for ever
                self._take_into(plan, request, tokens)
                budget -= tokens
            index += 1
        return budget

    def _make_room(self, plan: StepPlan, request: Request, tokens: int, index: int, budget: int) -> tuple[int, int]:
        """Preempt until ``request`` has its blocks or is preempted itself; the new index of it, and the new budget."""
        while not self.blocks.extend(request, request.computed_tokens + tokens):
            victim = self._victim()
            index -= self.running.index(victim) < index
            budget += self._preempt(plan, victim)
            if victim is request:
                break
        return index, budget

    def _victim(self) -> Request:
        return self.running[-1]

    def _preempt(self, plan: StepPlan, victim: Request) -> int:
        """Its blocks go, it waits first in line; returns the tokens it had been given in this very step."""
        self.running.remove(victim)
        self.blocks.free(victim)
        victim.status = Status.PREEMPTED
        victim.computed_tokens = 0
        victim.preemptions += 1
        self._wait_again(victim)
        plan.preempted.append(victim)
        return self._take_out_of(plan, victim)

    def _wait_again(self, victim: Request) -> None:
        self.waiting.appendleft(victim)

    def _take_out_of(self, plan: StepPlan, victim: Request) -> int:
        for chunk in plan.chunks:
            if chunk.request is victim:
                plan.chunks.remove(chunk)
                if chunk.samples:
                    victim.take_back_token()
                return chunk.tokens
        if victim in plan.decodes:
            plan.decodes.remove(victim)
            plan.decode_context_tokens -= victim.known_tokens - 2
            victim.take_back_token()
            return 1
        return 0

    def _schedule_waiting(self, plan: StepPlan, budget: int) -> None:
        limits = self.limits
        while self.waiting and budget > 0 and len(self.running) < limits.max_num_seqs:
            request = self.waiting[0]
            prefix = self.blocks.find_prefix(request)
            hit_tokens = sum(len(unit.blocks) for unit in prefix) * limits.block_size
            if not limits.chunked_prefill and request.known_tokens - hit_tokens > budget:
                break
            tokens = self._tokens_wanted(request, hit_tokens, budget)
            reserve = request.known_tokens if limits.reserve_full_prompt else hit_tokens + tokens
            keep_free = int(limits.watermark * limits.num_blocks) if self.running else 0
            if not self.blocks.admit(request, prefix, tokens, reserve, keep_free):
                break
            self._start(self.waiting.popleft(), hit_tokens)
            self._take_into(plan, request, tokens)
            budget -= tokens

    def _start(self, request: Request, hit_tokens: int) -> None:
        self.running.append(request)
        self.admissions += 1
        request.admission = self.admissions
        if request.status is Status.WAITING:
            request.cached_tokens = hit_tokens
        request.status = Status.RUNNING
        request.computed_tokens = hit_tokens

    def _tokens_wanted(self, request: Request, computed_tokens: int, budget: int) -> int:
        if request.produced_tokens >= request.output_tokens:
            return 0
        tokens = request.known_tokens - computed_tokens
        if self.limits.long_prefill_token_threshold:
            tokens = min(tokens, self.limits.long_prefill_token_threshold)
        return min(tokens, budget)

    def _take_into(self, plan: StepPlan, request: Request, tokens: int) -> None:
        context = request.computed_tokens
        request.computed_tokens += tokens
        samples = request.computed_tokens == request.known_tokens
        if context >= request.input_tokens and tokens == 1 and samples:
            plan.decodes.append(request)
            plan.decode_context_tokens += context
        else:
            plan.chunks.append(PrefillChunk(request, tokens, context, samples))
        if samples:
            request.note_token(plan.index)

    def _finish(self, request: Request) -> None:
        if request.status is Status.RUNNING:
            self.running.remove(request)
        else:  # preempted while its last token was being computed
            self.waiting.remove(request)
        self.blocks.free(request)
        request.status = Status.FINISHED
        del self._requests[request.request_id]


class PriorityScheduler(Scheduler):
    """``--scheduling-policy priority``: the smallest (priority, arrival) is next, the largest is preempted."""

    def add(self, request: Request) -> None:
        super().add(request)
        self._sort()

    def _wait_again(self, victim: Request) -> None:
        self.waiting.append(victim)
        self._sort()

    def _sort(self) -> None:
        self.waiting = deque(sorted(self.waiting, key=_urgency))

    def _victim(self) -> Request:
        return max(self.running, key=_urgency)


def _urgency(request: Request) -> tuple[int, float, int]:
    return (request.priority, request.arrival_s, request.number)
