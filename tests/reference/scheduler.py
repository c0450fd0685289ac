"""What the obvious schedulers share: every step visits every request."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Hashable

from reference.blocks import KVBlocks
from reference.plan import PrefillChunk, StepPlan
from reference.request import Request
from simserve.errors import RequestError
from simserve.scheduling import SchedulerLimits, Status


class Scheduler(ABC):
    """Decides what each step computes. Knows no clock: callers run the plan and say when it is complete.

    ``schedule`` may be called again before ``complete`` of the plan before (asynchronous scheduling): tokens of
    running steps count as known, and an end by length is foreseen. A policy is a subclass with a ``plan`` method.
    """

    alternates = False
    """Whether a step is either prompts alone or decodes alone; what is left of a resumed request is then a chunk."""

    whole_prompts = False
    """Whether a prompt is computed in one step, so that the token budget bounds what the engine can hold."""

    def __init__(self, limits: SchedulerLimits) -> None:
        self.limits = limits
        self.blocks = KVBlocks(limits.num_blocks, limits.block_size, limits.prefix_caching)
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        self.steps = 0
        self.least_free_blocks = self.blocks.usable_blocks
        self.added = 0
        self.admissions = 0
        self.prefilling: set[Request] = set()
        self._requests: dict[Hashable, Request] = {}

    @abstractmethod
    def plan(self, plan: StepPlan) -> None:
        """Put into ``plan`` what this step computes."""

    @property
    def has_requests(self) -> bool:
        return bool(self._requests)

    def add(self, request: Request) -> None:
        """Queue ``request``; its answer is cut at the longest sequence the engine can hold.

        Raises :class:`RequestError` if the prompt alone is longer than that.
        """
        most_tokens = self.most_tokens
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

    @property
    def most_tokens(self) -> int:
        most = min(self.limits.max_model_len, self.blocks.usable_blocks * self.limits.block_size)
        return min(most, self.limits.max_num_batched_tokens) if self.whole_prompts else most

    def abort(self, request_id: Hashable) -> Request | None:
        """Forget a request and free its blocks at once; None if it has ended already."""
        request = self._requests.pop(request_id, None)
        if request is None:
            return None
        if request.status is Status.RUNNING:
            self.running.remove(request)
        else:
            self.waiting.remove(request)
        self._release(request)
        request.status = Status.ABORTED
        return request

    def schedule(self) -> StepPlan:
        """Plan the next step; an empty plan if nothing can run."""
        plan = StepPlan(self.steps)
        self.plan(plan)
        if not plan.is_empty:
            self.steps += 1
            self.least_free_blocks = min(self.least_free_blocks, self.blocks.free_blocks)
        return plan

    def complete(self, plan: StepPlan) -> list[Request]:
        """The step has run: end the requests whose last token it sampled, and free their blocks."""
        for request in plan.sampled:
            request.delivered_tokens += 1
            if request.status is Status.RUNNING:
                in_flight = request.produced_tokens - request.delivered_tokens
                self.blocks.register(request, request.computed_tokens - in_flight)
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

    def _start(self, request: Request, hit_tokens: int) -> None:
        self.running.append(request)
        self.prefilling.add(request)
        self.admissions += 1
        request.admission = self.admissions
        if request.status is Status.WAITING:
            request.cached_tokens = hit_tokens
        request.status = Status.RUNNING
        request.computed_tokens = hit_tokens

    def _decode_all(self, plan: StepPlan) -> None:
        """A token for each request that has computed all but its last, the newest preempted if blocks are short."""
        index = 0
        while index < len(self.running):
            request = self.running[index]
            if self._is_decoding(request):
                while not self.blocks.extend(request, request.known_tokens):
                    self._preempt(plan, self.running[-1])
                    if request.status is Status.PREEMPTED:
                        break
                if request.status is Status.RUNNING:
                    self._take_into(plan, request, 1)
            index += 1

    def _is_decoding(self, request: Request) -> bool:
        return request not in self.prefilling and request.produced_tokens < request.output_tokens

    def _keep_free(self) -> int:
        return int(self.limits.watermark * self.limits.num_blocks) if self.running else 0

    def _preempt(self, plan: StepPlan, victim: Request) -> int:
        """Its blocks go, it waits first in line; returns the tokens it had been given in this very step."""
        self.running.remove(victim)
        self._release(victim)
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

    def _take_into(self, plan: StepPlan, request: Request, tokens: int) -> None:
        context = request.computed_tokens
        request.computed_tokens += tokens
        samples = request.computed_tokens == request.known_tokens
        if (
            context >= request.input_tokens
            and tokens == 1
            and samples
            and not (self.alternates and request in self.prefilling)
        ):
            plan.decodes.append(request)
            plan.decode_context_tokens += context
        else:
            plan.chunks.append(PrefillChunk(request, tokens, context, samples))
        if samples:
            self.prefilling.discard(request)
            request.note_token(plan.index)

    def _finish(self, request: Request) -> None:
        if request.status is Status.RUNNING:
            self.running.remove(request)
        else:  # preempted while its last token was being computed
            self.waiting.remove(request)
        self._release(request)
        request.status = Status.FINISHED
        del self._requests[request.request_id]

    def _release(self, request: Request) -> None:
        self.prefilling.discard(request)
        self.blocks.free(request)
