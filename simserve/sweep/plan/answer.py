"""The whole plan: candidates tried, the best refined and ranked, and what to say where none will do."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

from simserve.metrics.result import Result
from simserve.sweep.executors import Executor
from simserve.sweep.money import SECONDS_PER_HOUR
from simserve.sweep.plan.candidates import Candidate, Excluded, candidates_for
from simserve.sweep.plan.question import Question
from simserve.sweep.plan.trial import Offer, Sized, refine, size
from simserve.sweep.settings import RunOnce, command

MOST_OFFERS = 8
"""How many of the best are refined and shown."""

OnStep = Callable[[str, int, int], None]
"""Called with (what is being done, pieces done, pieces in all)."""


@dataclass(frozen=True)
class Plan:
    """``offers`` that meet the SLO, the best first, and what became of the others."""

    question: Question
    offers: Sequence[Offer]
    sized: Sequence[Sized]
    excluded: Sequence[Excluded]

    @property
    def refused(self) -> list[Sized]:
        """Candidates that were tried and do not carry the load."""
        return [one for one in self.sized if one.replicas is None]


def make_plan(question: Question, run_once: RunOnce, executor: Executor, on_step: OnStep) -> Plan:
    """Answer ``question``: prune by memory and physics, find the fewest replicas of the rest, refine the best."""
    candidates, excluded = candidates_for(question)
    groups = [list(group) for _, group in groupby(candidates, lambda one: (one.hardware, one.quantization))]
    sized: list[Sized] = []
    on_step("trying hardware", 0, len(groups))
    for done, found in enumerate(executor.map(partial(size, run_once, question), groups), start=1):
        sized += found
        on_step("trying hardware", done, len(groups))
    order = {candidate: place for place, candidate in enumerate(candidates)}
    sized.sort(key=lambda one: order[one.candidate])
    best = sorted((one for one in sized if one.replicas is not None), key=_rank_of_sized)[:MOST_OFFERS]
    offers: list[Offer] = []
    on_step("refining the best", 0, len(best))
    for done, offer in enumerate(executor.map(partial(refine, run_once, question), best), start=1):
        offers.append(offer)
        on_step("refining the best", done, len(best))
    return Plan(question, sorted(offers, key=rank), sized, excluded)


def rank(offer: Offer) -> tuple[bool, float, int, float, str]:
    """By cost where a price is known, then by devices and by how far the load is from where it breaks."""
    cost = usd_per_hour(offer)
    room = offer.breaks_at or float("inf")
    return cost is None, cost or 0.0, devices(offer), -room, str(offer.candidate)


def devices(offer: Offer) -> int:
    """Of all replicas."""
    return offer.replicas * offer.candidate.tensor_parallel_size


def usd_per_hour(offer: Offer) -> float | None:
    """Of all replicas; None where no price is known."""
    price = offer.candidate.usd_per_hour
    return None if price is None else price * offer.replicas


def usd_per_million_tokens(offer: Offer) -> float | None:
    """Per million output tokens at the load that was asked for."""
    cost, rate = usd_per_hour(offer), float(offer.result["output_throughput"] or 0.0)
    return None if cost is None or not rate else cost / SECONDS_PER_HOUR / rate * 1e6


def watts(offer: Offer) -> float | None:
    """Mean power of all devices over the run; None where the profile has no power."""
    energy_wh, duration_s = offer.result.get("energy_wh"), offer.result.get("duration")
    return float(energy_wh) * SECONDS_PER_HOUR / float(duration_s) if energy_wh and duration_s else None


def joules_per_token(offer: Offer) -> float | None:
    """Per output token at the load that was asked for; None where the profile has no power."""
    joules = offer.result.get("joules_per_output_token")
    return None if joules is None else float(joules)


def simulate_command(offer: Offer) -> str:
    """Gives the offer's figures again."""
    return command(offer.settings)


def vllm_command(offer: Offer) -> str:
    """Starts one replica for real."""
    words = ["vllm", "serve", str(offer.settings["model"])]
    size = offer.candidate.tensor_parallel_size
    flags = {
        "--tensor-parallel-size": size if size > 1 else None,
        "--quantization": offer.candidate.quantization,
        "--max-num-seqs": offer.result["max_num_seqs"],
        "--max-num-batched-tokens": offer.result["max_num_batched_tokens"],
        "--max-model-len": offer.result["max_model_len"],
        "--kv-cache-dtype": offer.settings.get("kv_cache_dtype"),
        "--gpu-memory-utilization": offer.settings.get("gpu_memory_utilization"),
    }  # fmt: skip
    return shlex.join([*words, *(str(part) for pair in flags.items() if pair[1] is not None for part in pair)])


def nearest(plan: Plan) -> tuple[Candidate, Result] | None:
    """Where nothing will do: what comes nearest to the SLO."""
    tried = [(one.candidate, one.nearest) for one in plan.refused if one.nearest is not None]
    if not tried:
        return None
    return min(tried, key=lambda pair: max(term.share(pair[1]) for term in plan.question.slo.terms))


def _rank_of_sized(sized: Sized) -> tuple[bool, float, int]:
    assert sized.replicas is not None
    price, devices_ = sized.candidate.usd_per_hour, sized.replicas * sized.candidate.tensor_parallel_size
    return price is None, (price or 0.0) * sized.replicas, devices_
