"""Scheduler, model and text together: requests in, tokens out, one step at a time. No threads and no event loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Sequence as Many
from dataclasses import dataclass

import torch

from simserve.engines.base import TokenLogprob
from simserve.engines.torch.runner import ModelRunner
from simserve.engines.torch.sampler import Sample
from simserve.engines.torch.sequence import Sequence
from simserve.engines.torch.text import AnswerText
from simserve.errors import RequestError
from simserve.scheduling import Scheduler, StepPlan
from simserve.workload import Tokenizer, block_hashes


@dataclass(frozen=True)
class Output:
    """What a step did for one sequence: a token, and the text that can be told now; the last has a finish reason."""

    sequence: Sequence
    time_s: float
    token_id: int | None = None
    text: str = ""
    logprob: TokenLogprob | None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    error: str | None = None


@dataclass(frozen=True)
class StepRecord:
    """One step of the ledger: when it ran and what was in it; ``chunks`` are (tokens, context) of each prompt."""

    index: int
    start_s: float
    end_s: float
    num_decodes: int
    decode_context_tokens: int
    chunks: tuple[tuple[int, int], ...]
    num_sampled: int


class EngineCore:
    """All that happens between a submitted sequence and its tokens; call it from one thread."""

    def __init__(
        self,
        runner: ModelRunner,
        scheduler: Scheduler,
        tokenizer: Tokenizer,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.runner, self.scheduler, self.tokenizer, self.clock_s = runner, scheduler, tokenizer, clock_s
        self.ledger: list[StepRecord] | None = None
        """Where each step leaves a record, if there is a list."""
        self.preemptions = 0
        self._pages = scheduler.number_blocks()
        self._texts: dict[Sequence, AnswerText] = {}

    def add(self, sequence: Sequence) -> None:
        """Queue ``sequence``, which was checked."""
        limits = self.scheduler.limits
        if limits.prefix_caching:
            sequence.units = block_hashes(sequence.token_ids, limits.block_size)
            sequence.unit_tokens = limits.block_size
        sequence.arrival_s = self.clock_s()
        self.scheduler.add(sequence)
        self._texts[sequence] = AnswerText(self.tokenizer, sequence)

    def check(self, sequence: Sequence) -> None:
        """Raise :class:`RequestError` if ``sequence`` cannot be served; may be called from any thread."""
        self.check_prompt(sequence.token_ids)
        vocabulary, params = self.runner.model.spec.vocab_size, sequence.sampling
        for name, tokens in (("logit_bias", params.logit_bias), ("stop_token_ids", params.stop_token_ids)):
            unknown = [token for token in tokens if not 0 <= token < vocabulary]
            if unknown:
                raise RequestError(f"{name} has token {unknown[0]}, and the model's vocabulary has {vocabulary}")

    def check_prompt(self, token_ids: Many[int]) -> None:
        """Raise :class:`RequestError` for a prompt that the engine cannot hold or the model does not know."""
        vocabulary, most_tokens = self.runner.model.spec.vocab_size, self.scheduler.most_tokens
        if not token_ids:
            raise RequestError("the prompt is empty; give at least one token")
        if len(token_ids) >= most_tokens:
            raise RequestError(
                f"the prompt has {len(token_ids)} tokens and the engine's longest sequence is {most_tokens}"
            )
        if min(token_ids) < 0 or max(token_ids) >= vocabulary:
            raise RequestError(f"the prompt has token ids outside of the model's vocabulary of {vocabulary}")

    def abort(self, request_id: str) -> None:
        """Forget a sequence and free its pages at once, if it has not ended."""
        request = self.scheduler.abort(request_id)
        if request is not None:
            self._texts.pop(_sequence(request), None)

    @property
    def has_work(self) -> bool:
        return self.scheduler.has_requests

    def step(self) -> list[Output]:
        """Run one step; empty if nothing is there to do.

        What goes wrong inside of the model ends the sequences of this step, with finish reason "error", and no others.
        """
        plan = self._plan()
        if plan.is_empty:
            return []
        start_s = self.clock_s()
        for chunk in plan.chunks:
            if chunk.request.scheduled_s != chunk.request.scheduled_s:  # NaN: its first step
                chunk.request.scheduled_s = start_s
        try:
            samples = self.runner.run(plan)
        except Exception as error:
            return self._give_up(plan, error)
        end_s = self.clock_s()
        if self.ledger is not None:
            self.ledger.append(_record(plan, start_s, end_s))
        return self._hand_out(plan, samples, end_s)

    def _plan(self) -> StepPlan:
        plan = self.scheduler.schedule(list_decodes=True)
        self.preemptions += len(plan.preempted)
        while plan.is_empty and plan.preempted:  # somebody made room for others, who can run now
            plan = self.scheduler.schedule(list_decodes=True)
            self.preemptions += len(plan.preempted)
        for request in plan.decodes:
            sequence = _sequence(request)
            sequence.pages = self._pages.table(sequence, len(sequence.token_ids))
        for chunk in plan.chunks:
            sequence = _sequence(chunk.request)
            sequence.pages = self._pages.table(sequence, chunk.context_tokens + chunk.tokens)
        return plan

    def _hand_out(self, plan: StepPlan, samples: list[Sample], end_s: float) -> list[Output]:
        outputs = [
            self._output(_sequence(request), sample, end_s)
            for request, sample in zip(plan.sampled, samples, strict=True)
        ]
        ended = [output.sequence for output in outputs if output.finish_reason is not None]
        for sequence in ended:
            if sequence.units:  # the answer's blocks, too, may be what a next prompt begins with
                sequence.units = block_hashes(sequence.token_ids, sequence.unit_tokens)
            sequence.finish_s = end_s
            del self._texts[sequence]
        self.scheduler.complete(plan, ended)
        return outputs

    def _output(self, sequence: Sequence, sample: Sample, end_s: float) -> Output:
        """Add the token to its sequence, and see whether it is the last one."""
        token = sample.token_id
        sequence.token_ids.append(token)
        if sequence.first_token_s != sequence.first_token_s:  # NaN: its first
            sequence.first_token_s = end_s
        params, text = sequence.sampling, self._texts[sequence]
        may_stop = sequence.answer_tokens >= params.min_tokens
        reason: str | None = None
        stop_reason: str | int | None = None
        if may_stop and token in params.stop_token_ids:
            reason, stop_reason = "stop", token
        elif may_stop and not params.ignore_eos and token in self.runner.model.details.eos_token_ids:
            reason = "stop"
        hidden = reason is not None and not params.include_stop
        piece = "" if hidden else text.push(token, may_stop=may_stop)
        if reason is None and text.stopped_by is not None:
            reason, stop_reason = "stop", text.stopped_by
        if reason is None and sequence.answer_tokens >= sequence.output_tokens:
            reason = "length"
        if reason is not None:
            piece += text.finish()
        return Output(sequence, end_s, token, piece, sample.logprob, reason, stop_reason)

    def _give_up(self, plan: StepPlan, error: Exception) -> list[Output]:
        """End everybody in the step; what it may have left half written is found by nobody."""
        time_s, sentence = self.clock_s(), _sentence(error, plan)
        involved = [*plan.decodes, *(chunk.request for chunk in plan.chunks)]
        self.scheduler.complete(plan, involved)
        self._pages.forget_prefixes()
        if isinstance(error, torch.OutOfMemoryError):
            torch.cuda.empty_cache()
        outputs = []
        for request in involved:
            sequence = _sequence(request)
            del self._texts[sequence]
            outputs.append(Output(sequence, time_s, finish_reason="error", error=sentence))
        return outputs


def _sentence(error: Exception, plan: StepPlan) -> str:
    first_line = str(error).strip().split("\n")[0]
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in first_line:
        return (
            f"the engine ran out of memory in a step of {plan.tokens} tokens ({first_line}); lower "
            "--max-num-batched-tokens, --max-num-seqs or --gpu-memory-utilization"
        )
    return f"the engine failed in the middle of a step ({type(error).__name__}: {first_line})"


def _record(plan: StepPlan, start_s: float, end_s: float) -> StepRecord:
    chunks = tuple((chunk.tokens, chunk.context_tokens) for chunk in plan.chunks)
    return StepRecord(
        plan.index, start_s, end_s, plan.num_decodes, plan.decode_context_tokens, chunks, plan.num_sampled
    )


def _sequence(request: object) -> Sequence:
    assert isinstance(request, Sequence)
    return request
