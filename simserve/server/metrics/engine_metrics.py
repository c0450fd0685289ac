"""What one engine did so far, counted as it happens: a handful of additions for each step and each request."""

from __future__ import annotations

from simserve.engines.base import Engine
from simserve.engines.live_replica import LiveReplica
from simserve.engines.reports import Arrival, Ending, StepReport
from simserve.server.metrics import buckets
from simserve.server.metrics.histogram import Histogram

FINISHED_REASONS = ("stop", "length", "abort", "error", "repetition")


class EngineMetrics:
    """Observes ``engine``, which serves ``model_name``; see :class:`simserve.engines.reports.EngineObserver`.

    With ``replica`` it is about that one of a cluster's, and its index is the engine's number, as vLLM numbers engines.
    All times are the engine's own: simulated seconds, whatever the time scale.
    """

    def __init__(self, engine: Engine, model_name: str, replica: LiveReplica | None = None) -> None:
        self.engine = engine
        self.part: Engine | LiveReplica = replica or engine
        """What it counts the work of."""
        self.number = str(replica.index if replica else 0)
        self.model_name = model_name
        self.prompt_tokens = self.cached_tokens = self.generation_tokens = self.preemptions = 0
        self.ended_by_reason = dict.fromkeys(FINISHED_REASONS, 0)
        tokens = buckets.tokens_up_to(engine.max_model_len)
        self.ttft_s = Histogram(buckets.TTFT_S)
        self.itl_s = Histogram(buckets.TOKEN_S)
        self.tpot_s = Histogram(buckets.TOKEN_S)
        self.e2e_s, self.queue_s, self.inference_s, self.prefill_s, self.decode_s = (
            Histogram(buckets.REQUEST_S) for _ in range(5)
        )
        self.request_prompt_tokens, self.request_generation_tokens = Histogram(tokens), Histogram(tokens)
        self.request_max_tokens, self.request_computed_tokens = Histogram(tokens), Histogram(tokens)
        self.most_generation_tokens = Histogram(tokens)
        self.request_choices = Histogram(buckets.CHOICES)
        self.request_preemptions = Histogram(buckets.PREEMPTIONS)
        self.step_tokens = Histogram(buckets.STEP_TOKENS)

    def arrived(self, arrival: Arrival) -> None:
        """Who waits is looked up when somebody asks."""

    def step_done(self, step: StepReport) -> None:
        self.generation_tokens += step.output_tokens
        self.preemptions += step.preempted
        self.step_tokens.add(step.decodes + step.prefill_tokens)
        for gap_s, count in step.gaps:
            self.itl_s.add(gap_s, count)
        for first in step.first_tokens:
            self.prompt_tokens += first.input_tokens
            self.cached_tokens += first.cached_tokens
            self.ttft_s.add(first.ttft_s)

    def ended(self, ending: Ending) -> None:
        self.ended_by_reason[ending.finish_reason] += 1
        timing = ending.timing
        if timing is None:
            return
        decode_s = timing.finish_s - timing.first_token_s
        self.e2e_s.add(timing.finish_s - timing.arrival_s)
        self.queue_s.add(timing.scheduled_s - timing.arrival_s)
        self.inference_s.add(timing.finish_s - timing.scheduled_s)
        self.prefill_s.add(timing.first_token_s - timing.scheduled_s)
        self.decode_s.add(decode_s)
        if ending.output_tokens > 1:
            self.tpot_s.add(decode_s / (ending.output_tokens - 1))
        self.request_prompt_tokens.add(ending.input_tokens)
        self.request_generation_tokens.add(ending.output_tokens)
        self.request_max_tokens.add(ending.max_tokens)
        self.request_computed_tokens.add(ending.input_tokens - ending.cached_tokens)
        self.request_preemptions.add(timing.preemptions)

    def answered(self, choices: int, most_tokens: int) -> None:
        """A prompt of an HTTP request has all its ``choices``, the longest of which has ``most_tokens``."""
        self.request_choices.add(choices)
        self.most_generation_tokens.add(most_tokens)
