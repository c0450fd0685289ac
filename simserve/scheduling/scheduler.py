"""What all policies share: requests come, get blocks, decode together, are preempted, end.

A policy is a subclass with a ``plan`` method (see ``vllm_v1``); everything here costs the same whatever the batch, but
for the listing of decodes, which only those ask for who deliver or compute each token.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from simserve.errors import RequestError
from simserve.scheduling.decode_set import DecodeSet
from simserve.scheduling.kv_cache import KVCache, PrefixHit
from simserve.scheduling.numbered_kv_cache import NumberedKVCache
from simserve.scheduling.plan import PrefillChunk, Stall, StepPlan
from simserve.scheduling.request import ABORTED, FINISHED, NONE, PREEMPTED, RUNNING, WAITING, Request, Status
from simserve.scheduling.waiting import FcfsQueue, WaitingQueue

Options = Mapping[str, bool | int | float | str | None]
"""Engine options by name, with values."""


@dataclass(frozen=True)
class SchedulerLimits:
    """What bounds a step and the engine, by vLLM's names; ``num_blocks`` includes the null block.

    The last three are SGLang's: order of waiting requests, caution, and most tokens kept for one answer.
    """

    num_blocks: int
    block_size: int = 16
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    max_model_len: int = 1 << 30
    prefix_caching: bool = True
    chunked_prefill: bool = True
    long_prefill_token_threshold: int = 0
    reserve_full_prompt: bool = True
    watermark: float = 0.0
    longest_prefix_first: bool = False
    schedule_conservativeness: float = 1.0
    clip_max_new_tokens: int = 4096


class Scheduler(ABC):
    """Decides what each step computes. Knows no clock: callers run the plan and say when it is complete.

    ``schedule`` may be called again before ``complete`` of the plan before (asynchronous scheduling): tokens of
    running steps count as known, and an end by length is foreseen.
    """

    options: ClassVar[Options] = {"enable_prefix_caching": True, "async_scheduling": True}
    """Engine options that this policy honours beyond those that hold for all, with its defaults; others are refused."""

    fixed: ClassVar[Options] = {}
    """Engine options that this policy can only have this way."""

    alternates: ClassVar[bool] = False
    """Whether a step is either prompts alone or decodes alone."""

    reserves_answers: ClassVar[bool] = False
    """Whether admission hands out the blocks of the whole answer, so that decodes need no more."""

    whole_prompts: ClassVar[bool] = False
    """Whether a prompt is computed in one step, so that the token budget bounds what the engine can hold."""

    __slots__ = (
        "_admissions", "_completed", "_decoding", "_ending", "_head_failed", "_head_may_change", "_kept_free",
        "_prefilling", "_stalled_step", "_stalls", "_starved", "blocks", "least_free_blocks", "limits", "most_tokens",
        "requests", "running", "steps", "waiting",
    )  # fmt: skip

    def __init__(self, limits: SchedulerLimits) -> None:
        self.limits = limits
        self.blocks: KVCache = KVCache(limits.num_blocks, limits.block_size, limits.prefix_caching)
        self.waiting: WaitingQueue = FcfsQueue()
        self.running: dict[Hashable, Request] = {}
        """In order of admission."""
        self.requests = 0
        """Those that are here: running, in line, or on their way there."""
        self.most_tokens = min(limits.max_model_len, self.blocks.usable_blocks * limits.block_size)
        """Longest sequence, prompt and answer, that the engine can hold."""
        if self.whole_prompts:
            self.most_tokens = min(self.most_tokens, limits.max_num_batched_tokens)
        self.steps = 0
        self.least_free_blocks = self.blocks.usable_blocks
        """Fewest free blocks that any step left."""
        self._decoding = DecodeSet(limits.block_size)
        self._prefilling: list[Request] = []
        self._starved: list[Request] = NONE
        """Decodes that the last step's budget did not reach."""
        self._ending: dict[int, list[Request]] = {}
        self._kept_free = int(limits.watermark * limits.num_blocks)
        self._admissions = 0
        self._head_failed: tuple[Request, int] | None = None
        self._head_may_change = False
        self._stalls: list[Stall] = NONE
        self._stalled_step = -2
        """The last step in which all decodes waited."""
        self._completed = -1

    @abstractmethod
    def plan(self, plan: StepPlan) -> None:
        """Decide what step ``plan.index`` computes: the one thing that a policy must do."""

    def number_blocks(self) -> NumberedKVCache:
        """Have the KV blocks numbered, for an engine that computes what is in them; no decision changes by it.

        Call it before the first request comes.
        """
        limits = self.limits
        numbered = NumberedKVCache(limits.num_blocks, limits.block_size, limits.prefix_caching)
        self.blocks = numbered
        return numbered

    @property
    def has_requests(self) -> bool:
        return self.requests > 0

    def add(self, request: Request) -> None:
        """Queue ``request``; its answer is cut at the longest sequence the engine can hold.

        Raises :class:`RequestError` if the prompt alone is longer than that.
        """
        most_tokens = self.most_tokens
        if request.input_tokens >= most_tokens:
            flags = "--max-model-len" + (" and --max-num-batched-tokens" if self.whole_prompts else "")
            raise RequestError(
                f"request {request.request_id} has {request.input_tokens} prompt tokens; "
                f"this engine holds at most {most_tokens} with the answer: shorten it or raise {flags}"
            )
        if request.output_tokens > most_tokens - request.input_tokens:
            request.output_tokens = most_tokens - request.input_tokens
        self.requests += 1
        self.waiting.push(request)

    def abort(self, request_id: Hashable) -> Request | None:
        """Forget a request and free its blocks at once; None if it has ended already."""
        request = self.find(request_id)
        if request is not None:
            self._end(request, ABORTED)
        return request

    def find(self, request_id: Hashable) -> Request | None:
        """The request of this id; None if it has ended, or never came."""
        running = self.running.get(request_id)
        return running or next((request for request in self.waiting if request.request_id == request_id), None)

    def abort_all(self) -> list[Request]:
        """Forget all requests and free their blocks at once; running ones come first, each kind in its order."""
        requests = [*self.running.values(), *self.waiting]
        for request in requests:
            self._end(request, ABORTED)
        return requests

    def sampling(self, plan: StepPlan) -> list[Request]:
        """Who gets a token from ``plan``, the last one scheduled."""
        step = plan.index
        decodes = () if plan.decodes_wait else self.running.values()
        sampled = [request for request in decodes if request.decode_offset is not None and request.joined_step <= step]
        return sampled + [chunk.request for chunk in plan.chunks if chunk.samples]

    def schedule(self, most_repeats: int = 1, list_decodes: bool = False) -> StepPlan:
        """Plan the next step; an empty plan if nothing can run.

        Where nothing can happen for a while, the plan stands for up to ``most_repeats`` steps: run as many of them as
        you like and tell :meth:`settle` how many, before you call anything but :meth:`add`.
        """
        step, decoding = self.steps, self._decoding
        plan = StepPlan(step)
        if step - 1 - decoding.stalled_steps in decoding.ends:
            self._retire(step - 1)
        self.plan(plan)
        if plan.decodes_wait:
            self._stall(plan)
        elif decoding.count:
            plan.num_decodes = decoding.count
            plan.decode_context_tokens = decoding.context_tokens(step)
        if self._stalls and not plan.decodes_wait:
            plan.resuming = [stall for stall in self._stalls if stall.count]
            self._stalls = NONE
        if list_decodes and not plan.decodes_wait:
            plan.decodes = self._decodes_now()
        if plan.chunks:
            for chunk in plan.chunks:
                if chunk.samples:
                    self._begin_to_decode(chunk.request)
        elif plan.num_decodes == 0:
            return plan
        elif most_repeats > 1 and self._is_quiet(plan):
            plan.repeat = self._quiet_steps(most_repeats)
        self.steps = step + 1
        free_blocks = self.blocks.free_blocks
        if free_blocks < self.least_free_blocks:
            self.least_free_blocks = free_blocks
        return plan

    def settle(self, plan: StepPlan, steps: int) -> None:
        """``plan``, the last one scheduled, is run for ``steps`` steps, at most its ``repeat``."""
        if steps > 1:
            if not self.reserves_answers:
                blocks = self._decoding.blocks_needed_over(self.steps, steps - 1)
                if blocks:
                    self.blocks.take(blocks)
            self.steps += steps - 1
            if self.blocks.free_blocks < self.least_free_blocks:
                self.least_free_blocks = self.blocks.free_blocks
        plan.repeat = steps

    def complete(self, plan: StepPlan, ended: Iterable[Request] = ()) -> list[Request]:
        """The plan has run: end the requests whose last token it sampled, and free their blocks.

        ``ended`` are requests whose token turned out to be their last, which nobody could foresee.
        """
        last_step = plan.index + plan.repeat - 1
        self._completed = last_step
        if last_step - self._decoding.stalled_steps in self._decoding.ends:
            self._retire(last_step)
        if not ended and last_step not in self._ending:
            return []
        finished = self._ending.pop(last_step, [])
        for request in ended:
            if self.find(request.request_id) is not None and request not in finished:
                finished.append(request)
        if len(finished) > 1:
            finished.sort(key=_by_admission)
        finished = [request for request in finished if request.status is not ABORTED]
        for request in finished:
            self._end(request, FINISHED)
        return finished

    @property
    def admission_is_blocked(self) -> bool:
        """Whether the next in line is known not to fit before something ends: later arrivals change nothing."""
        if len(self.running) >= self.limits.max_num_seqs:
            return True
        failed = self._head_failed
        return failed is not None and failed[1] == self.blocks.version and self.waiting.peek() is failed[0]

    # What policies are made of.

    def admit(
        self,
        plan: StepPlan,
        request: Request,
        hit: PrefixHit,
        tokens: int,
        reserve_tokens: int,
        *,
        allocate: bool = False,
    ) -> bool:
        """Start ``request``, the next in line, with a chunk of ``tokens`` tokens; False if its blocks do not fit.

        ``reserve_tokens`` must fit, what the cache holds of them included; if ``allocate``, their blocks are handed out
        now and not chunk by chunk.
        """
        keep_free = self._kept_free if self.running else 0
        hit_tokens = hit.blocks * self.limits.block_size
        received = request.received_tokens
        given_tokens = reserve_tokens - hit_tokens if allocate or received else tokens
        if not self.blocks.admit(request, given_tokens, reserve_tokens, keep_free, hit):
            self._head_failed = (request, self.blocks.version)
            self._head_may_change = self.blocks.have_twins(hit.runs)
            return False
        if allocate:
            request.allocated_tokens = reserve_tokens
        self.waiting.pop()
        self.running[request.request_id] = request
        self._admissions += 1
        request.admission = self._admissions
        if request.status is WAITING:
            request.cached_tokens = hit_tokens
        request.status = RUNNING
        if received:
            request.computed_tokens = request.known_tokens - tokens
            request.received_tokens = 0
        else:
            request.computed_tokens = hit_tokens
        self._prefilling.append(request)
        self.compute(plan, request, tokens)
        return True

    def compute(self, plan: StepPlan, request: Request, tokens: int) -> None:
        """Put ``tokens`` tokens of ``request``, which is prefilling and has the blocks for them, into the step."""
        context = request.computed_tokens
        samples = context + tokens == request.input_tokens + request.produced_tokens
        if samples:
            self._prefilling.remove(request)
            if tokens == 1 and context >= request.input_tokens and not self.alternates:
                self._decoding.join(request, plan.index)
                plan.add_returning(request)
                request.returned_step = plan.index
                return
        request.computed_tokens = context + tokens
        if request.units:
            self.blocks.register_units(request)
        plan.add_chunk(PrefillChunk(request, tokens, context, samples))

    def grow_decodes(self, plan: StepPlan) -> None:
        """Give the decodes the blocks they need in this step; the newest running requests make room if they must."""
        blocks = self._decoding.blocks_needed(plan.index)
        while blocks > self.blocks.free_blocks:
            _, victim = self.running.popitem()
            if victim.decode_offset is not None:
                blocks -= self._decoding.needs_block(victim, plan.index)
            self.preempt(plan, victim)
        self.blocks.take(blocks)

    def preempt(self, plan: StepPlan, victim: Request, unhashed: int = 0) -> None:
        """Take ``victim``, out of ``running`` already, off the step: its blocks go, it waits first in line."""
        if victim.decode_offset is not None:
            unhashed = self._unhashed_tokens(victim)
            stall = self._leave(victim, plan.index)
            if stall is not None:
                victim.last_token_s = stall.last_token_s
            elif victim in plan.returning:
                plan.returning.remove(victim)
            else:
                plan.add_pausing(victim)
        elif victim in self._prefilling:
            self._prefilling.remove(victim)
        self._release(victim, may_return=True, unhashed_tokens=unhashed)
        victim.status = PREEMPTED
        victim.computed_tokens = 0
        victim.preemptions += 1
        self.waiting.push_front(victim)
        plan.add_preempted(victim)

    def _decodes_now(self) -> list[Request]:
        """Who may get a token from the step being planned, in order of admission."""
        return [request for request in self.running.values() if request.decode_offset is not None]

    def _stall(self, plan: StepPlan) -> None:
        """Nobody in the decode set gets a token: those who had one in the step before stall from now on."""
        count = self._decoding.count - sum(stall.count for stall in self._stalls)
        if count:
            plan.stalling = Stall(plan.index, count)
            self._stalls = [*self._stalls, plan.stalling]
        self._stalled_step = plan.index
        self._decoding.stall()

    def _leave(self, request: Request, step: int) -> Stall | None:
        """``request`` no longer decodes, from ``step`` on; the stall that it was in, if any."""
        self._decoding.leave(request, step)
        for stall in self._stalls:
            if request.joined_step <= stall.step:
                stall.count -= 1
                return stall
        return None

    def _unhashed_tokens(self, request: Request, *, served: bool = False) -> int:
        """1 if the token that ``request`` computed last was still being sampled when its step was planned, else 0."""
        last_step = self.steps if served else self.steps - 1
        in_flight = self._completed < self.steps - 1
        if not in_flight or request.joined_step > last_step or request.returned_step == last_step:
            return 0
        had_waited = request.joined_step <= self._stalled_step and self._stalled_step >= last_step - 1
        return int(not had_waited)

    def _release(self, request: Request, *, may_return: bool = False, unhashed_tokens: int = 0) -> None:
        self.blocks.free(request, may_return=may_return, unhashed_tokens=unhashed_tokens)

    def _begin_to_decode(self, request: Request) -> None:
        """The step being planned samples a token of ``request``: its first, or the first after a preemption."""
        request.produced_tokens += 1
        if request.produced_tokens < request.output_tokens:
            self._decoding.join(request, self.steps + 1)
        else:
            self._ending.setdefault(self.steps, []).append(request)

    def _retire(self, last_step: int) -> None:
        ended = self._decoding.pop_ended(last_step)
        if ended:
            self._ending.setdefault(last_step, []).extend(ended)

    def _end(self, request: Request, status: Status) -> None:
        self.requests -= 1
        unhashed = 0
        if request.status is RUNNING:
            del self.running[request.request_id]
            if request.decode_offset is not None:
                unhashed = self._unhashed_tokens(request)
                self._leave(request, self.steps)
            elif request in self._prefilling:
                self._prefilling.remove(request)
            elif request in self._starved:
                self._starved.remove(request)
        else:
            self.waiting.remove(request)
        self._release(request, unhashed_tokens=unhashed)
        request.status = status

    def _is_quiet(self, plan: StepPlan) -> bool:
        """Whether the next step, too, can only be the same decodes, as long as none of them ends or needs a block."""
        if self._prefilling or self._starved or plan.preempted or plan.returning or plan.resuming:
            return False
        if not self.waiting:
            return True
        return not self._ending and not self._head_may_change and self.admission_is_blocked

    def _quiet_steps(self, most_steps: int) -> int:
        step, decoding = self.steps, self._decoding
        steps = min(most_steps, decoding.next_end() - step + 1)
        if self.reserves_answers:
            return steps
        if steps > 1 and self.blocks.free_blocks < decoding.count * (steps // self.limits.block_size + 1):
            steps = 1 + decoding.steps_within(step + 1, steps - 1, self.blocks.free_blocks)
        return steps


def _by_admission(request: Request) -> int:
    return request.admission
