"""Step by step: does SimServe schedule as vLLM does?

Drives vLLM's own scheduler and SimServe's ``vllm-v1`` policy through the same cases, without a model and without
time, and compares after every step: tokens per request, who was preempted, who ended, who runs and waits in which
order, and how many KV blocks are free. Six named cases first, then random small ones, each with synchronous and with
asynchronous scheduling (one step planned ahead).

Needs an environment that has vLLM (its kernels are not used, no GPU is needed) and SimServe's own dependencies:

    PYTHONPATH=. VLLM_LOGGING_LEVEL=ERROR python scripts/compare_with_vllm.py --cases 1000 --seed 0

SimServe follows vLLM 0.19. Where a newer vLLM differs, the case is run again with that change taken back
(``LATER_CHANGES``), to tell a change of vLLM from an error of SimServe's. Exit code 1 if a difference remains.
See docs/fidelity.md for what came out.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any, Protocol

import torch
import vllm
from vllm import SamplingParams
from vllm.config import CacheConfig, DeviceConfig, ModelConfig, VllmConfig
from vllm.config import SchedulerConfig as VllmSchedulerConfig
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler as SyncScheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request as VllmRequest
from vllm.v1.structured_output import StructuredOutputManager

from simserve.scheduling import Request, SchedulerLimits, StepPlan, VllmV1, VllmV1Priority
from simserve.workload import block_hashes

MODEL_FOLDER = Path(__file__).resolve().parent.parent / "models/facebook/opt-125m"
MOST_STEPS = 20_000
END_OF_ANSWER = 2
"""Token by which an answer ends before its longest length."""


@dataclass(frozen=True)
class Arrival:
    """A request that comes before step ``step``, and not before the request ``follows`` has ended.

    The model says ``answer``; a shorter one than ``most_tokens`` ends with ``END_OF_ANSWER``.
    """

    request_id: str
    step: int
    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    most_tokens: int
    priority: int = 0
    follows: str | None = None


@dataclass(frozen=True)
class Case:
    name: str
    limits: SchedulerLimits
    arrivals: tuple[Arrival, ...]
    asynchronous: bool = False
    by_priority: bool = False


@dataclass
class Step:
    """What is compared. ``finished`` are the requests that ended between this step's planning and the next's."""

    tokens: dict[str, int]
    preempted: list[str]
    free_blocks: int
    running: list[str]
    waiting: list[str]
    finished: list[str] = field(default_factory=list)


class Engine(Protocol):
    def add(self, arrival: Arrival) -> None: ...

    def schedule(self) -> tuple[Step, Any]:
        """Plan a step; also what ``complete`` wants of it."""
        ...

    def complete(self, plan: Any) -> list[str]:
        """The step has run; who has ended by it."""
        ...


def run(engine: Engine, case: Case) -> list[Step]:
    """Every step of ``case``; an asynchronous engine plans one step before it hears of the one before."""
    steps: list[Step] = []
    pending, finished = list(case.arrivals), set[str]()
    in_flight = None
    while len(finished) < len(case.arrivals):
        if len(steps) == MOST_STEPS:
            raise RuntimeError(f"{case.name} does not end")
        due = [a for a in pending if a.step <= len(steps) and (a.follows is None or a.follows in finished)]
        for arrival in due:
            pending.remove(arrival)
            engine.add(arrival)
        step, plan = engine.schedule()
        plan = plan if step.tokens else None
        ran, in_flight = (in_flight, plan) if case.asynchronous else (plan, None)
        if ran is not None:
            step.finished = sorted(engine.complete(ran))
            finished.update(step.finished)
        steps.append(step)
    return steps


class SimServeEngine:
    def __init__(self, case: Case) -> None:
        self._case = case
        self._scheduler = (VllmV1Priority if case.by_priority else VllmV1)(case.limits)
        self._followed = {arrival.follows for arrival in case.arrivals}
        self._order = itertools.count()
        self._answers: dict[str, int] = {}
        self._sampled: Counter[str] = Counter()

    def add(self, arrival: Arrival) -> None:
        block_size = self._case.limits.block_size
        shared = arrival.prompt + (arrival.answer if arrival.request_id in self._followed else ())
        request = Request(
            arrival.request_id,
            len(arrival.prompt),
            arrival.most_tokens,
            arrival_s=float(next(self._order)),
            units=block_hashes(shared, unit_tokens=block_size),
            unit_tokens=block_size,
            priority=arrival.priority,
        )
        self._scheduler.add(request)
        if len(arrival.answer) < arrival.most_tokens:
            self._answers[arrival.request_id] = len(arrival.answer)

    def schedule(self) -> tuple[Step, tuple[StepPlan, list[Request]]]:
        scheduler = self._scheduler
        plan = scheduler.schedule(list_decodes=True)
        tokens = {str(chunk.request.request_id): chunk.tokens for chunk in plan.chunks}
        tokens |= {str(request.request_id): 1 for request in plan.decodes}
        ended = []
        for request in plan.sampled:
            name = str(request.request_id)
            self._sampled[name] += 1
            if self._sampled[name] == self._answers.get(name):
                ended.append(request)
        step = Step(
            tokens,
            sorted(str(request.request_id) for request in plan.preempted),
            scheduler.blocks.free_blocks,
            [str(name) for name in scheduler.running],
            [str(request.request_id) for request in scheduler.waiting],
        )
        return step, (plan, ended)

    def complete(self, plan: tuple[StepPlan, list[Request]]) -> list[str]:
        return [str(request.request_id) for request in self._scheduler.complete(*plan)]


class VllmEngine:
    def __init__(self, case: Case, take_back: Iterable[str] = ()) -> None:
        self._scheduler = _vllm_scheduler(case)
        for change in take_back:
            LATER_CHANGES[change](self._scheduler)
        hasher = get_request_block_hasher(case.limits.block_size, sha256)
        self._hasher = hasher if case.limits.prefix_caching else None
        self._order = itertools.count()
        self._answers: dict[str, Sequence[int]] = {}
        self._sampled: Counter[str] = Counter()

    def add(self, arrival: Arrival) -> None:
        request = VllmRequest(
            request_id=arrival.request_id,
            prompt_token_ids=list(arrival.prompt),
            sampling_params=SamplingParams(max_tokens=arrival.most_tokens, stop_token_ids=[END_OF_ANSWER]),
            pooling_params=None,
            arrival_time=float(next(self._order)),
            priority=arrival.priority,
            block_hasher=self._hasher,
        )
        self._answers[arrival.request_id] = arrival.answer
        self._scheduler.add_request(request)

    def schedule(self) -> tuple[Step, tuple[Any, ModelRunnerOutput]]:
        scheduler = self._scheduler
        output = scheduler.schedule()
        step = Step(
            dict(output.num_scheduled_tokens),
            sorted(output.preempted_req_ids or ()),
            scheduler.kv_cache_manager.block_pool.get_num_free_blocks(),
            [request.request_id for request in scheduler.running],
            [request.request_id for request in scheduler.waiting],
        )
        return step, (output, self._model_output(list(step.tokens)))

    def complete(self, plan: tuple[Any, ModelRunnerOutput]) -> list[str]:
        outputs = self._scheduler.update_from_output(*plan)
        return [o.request_id for client in outputs.values() for o in client.outputs if o.finish_reason is not None]

    def _model_output(self, names: list[str]) -> ModelRunnerOutput:
        """One token for each request whose known tokens are all computed by this step."""
        sampled: list[list[int]] = []
        for name in names:
            if self._scheduler.requests[name].is_prefill_chunk:
                sampled.append([])
                continue
            answer, place = self._answers[name], self._sampled[name]
            self._sampled[name] += 1
            sampled.append([answer[place] if place < len(answer) else END_OF_ANSWER])
        places = {name: place for place, name in enumerate(names)}
        return ModelRunnerOutput(req_ids=names, req_id_to_index=places, sampled_token_ids=sampled)


def _vllm_scheduler(case: Case) -> SyncScheduler:
    limits = case.limits
    model_config = copy(_model_config())
    model_config.max_model_len = limits.max_model_len
    scheduler_config = VllmSchedulerConfig(
        max_num_seqs=limits.max_num_seqs,
        max_num_batched_tokens=limits.max_num_batched_tokens,
        max_model_len=limits.max_model_len,
        enable_chunked_prefill=limits.chunked_prefill,
        long_prefill_token_threshold=limits.long_prefill_token_threshold,
        scheduler_reserve_full_isl=limits.reserve_full_prompt,
        watermark=limits.watermark,
        policy="priority" if case.by_priority else "fcfs",
        async_scheduling=case.asynchronous,
        is_encoder_decoder=False,
    )
    cache_config = CacheConfig(block_size=limits.block_size, enable_prefix_caching=limits.prefix_caching)
    cache_config.num_gpu_blocks = limits.num_blocks
    config = VllmConfig(
        model_config=model_config,
        scheduler_config=scheduler_config,
        cache_config=cache_config,
        device_config=DeviceConfig(device="cpu"),
    )
    layer = FullAttentionSpec(block_size=limits.block_size, num_kv_heads=1, head_size=1, dtype=torch.float32)
    scheduler_class = AsyncScheduler if case.asynchronous else SyncScheduler
    return scheduler_class(
        vllm_config=config,
        kv_cache_config=KVCacheConfig(
            num_blocks=limits.num_blocks,
            kv_cache_tensors=[],
            kv_cache_groups=[KVCacheGroupSpec(["layer"], layer)],
        ),
        structured_output_manager=StructuredOutputManager(config),
        block_size=limits.block_size,
    )


@cache
def _model_config() -> ModelConfig:
    return ModelConfig(model=str(MODEL_FOLDER), skip_tokenizer_init=True, dtype="float16")


def _threshold_for_a_lone_request_too(scheduler: SyncScheduler) -> None:
    """Before vLLM's PR 57951, ``long_prefill_token_threshold`` held for the only request in the engine as well."""
    scheduler.get_request_counts = lambda: (1, 1)


def _one_order_of_freed_blocks(scheduler: SyncScheduler) -> None:
    """Before vLLM's PR 42656, all freed blocks went to the queue's end, not those without hash to its front."""
    pool = scheduler.kv_cache_manager.block_pool

    def free_blocks(blocks: Iterable[Any]) -> None:
        freed = list(blocks)
        for block in freed:
            block.ref_cnt -= 1
        pool.free_block_queue.append_n([block for block in freed if block.ref_cnt == 0])

    pool.free_blocks = free_blocks


LATER_CHANGES: dict[str, Callable[[SyncScheduler], None]] = {
    "no threshold for a lone request (vLLM PR 57951)": _threshold_for_a_lone_request_too,
    "freed blocks without hash are reused first (vLLM PR 42656)": _one_order_of_freed_blocks,
}
"""What vLLM changed after 0.19 and these cases can show, and how to take it back."""


def named_cases() -> list[Case]:
    limits = partial(SchedulerLimits, block_size=16, max_model_len=1024, max_num_seqs=16)
    plain = partial(limits, num_blocks=1000, max_num_batched_tokens=256)
    texts = Random(0)
    shared = _text(texts, 160)
    return [
        Case("chunked prefill", plain(), (_arrival(texts, 0, 900, 5),)),
        Case("many decodes", plain(), tuple(_arrival(texts, i, 8, 40 + i) for i in range(12))),
        Case("mixed batch", plain(), tuple(_arrival(texts, i, (600 if i % 3 else 30), 20, 2 * i) for i in range(9))),
        Case("exhausted budget", plain(), tuple(_arrival(texts, i, 200, 10) for i in range(8))),
        Case(
            "preemption on full memory",
            limits(num_blocks=33, max_num_batched_tokens=256, max_model_len=400),
            tuple(_arrival(texts, i, 100, 100, i) for i in range(6)),
        ),
        Case(
            "shared prefix",
            plain(),
            tuple(_arrival(texts, i, 40, 10, 3 * i, prefix=shared) for i in range(6)),
        ),
    ]


def random_case(seed: int) -> Case:
    """A small case that is tight in some way: blocks, budget, places, or all of them."""
    random = Random(seed)
    block_size = random.choice([2, 4, 16])
    usable_blocks = random.randint(4, 40)
    max_model_len = random.randint(4, usable_blocks * block_size)
    chunked = random.random() < 0.85
    max_num_seqs = random.randint(1, 8)
    most_budget = max(max_num_seqs, max_model_len * random.choice([1, 1, max_num_seqs]))
    budget = random.randint(max_num_seqs if chunked else max(max_num_seqs, max_model_len), most_budget)
    limits = SchedulerLimits(
        num_blocks=usable_blocks + 1,
        block_size=block_size,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=budget,
        max_model_len=max_model_len,
        prefix_caching=random.random() < 0.7,
        chunked_prefill=chunked,
        long_prefill_token_threshold=random.choice([0, 0, random.randint(1, max_model_len)]),
        reserve_full_prompt=random.random() < 0.6,
        watermark=random.choice([0.0, 0.0, 0.0, 0.1]),
    )
    return Case(
        f"random {seed}",
        limits,
        tuple(_random_arrivals(random, max_model_len)),
        by_priority=random.random() < 0.2,
    )


def _random_arrivals(random: Random, max_model_len: int) -> Iterable[Arrival]:
    documents = [_text(random, random.randint(1, max_model_len)) for _ in range(random.randint(1, 3))]
    last_step = random.choice([0, 5, 40])
    endings = random.random() < 0.4
    earlier: list[Arrival] = []
    for number in range(random.randint(1, 12)):
        follows = random.choice(earlier) if earlier and random.random() < 0.25 else None
        begin = random.choice([*documents, ()]) if follows is None else follows.prompt + follows.answer
        begin = begin[: random.choice([len(begin), random.randint(0, len(begin))])]
        prompt = begin + _text(random, random.randint(1, max(1, min(40, max_model_len // 2))))
        prompt = prompt[: max_model_len - 1]
        most = random.randint(1, max(1, min(40, max_model_len)))
        answer = _text(random, most)
        if endings and most > 1:
            answer = (*answer[: random.randint(0, most - 2)], END_OF_ANSWER)
        answer = answer[: max_model_len - len(prompt)]
        most = max(len(answer), most) if answer[-1] == END_OF_ANSWER else len(answer)
        arrival = Arrival(
            f"r{number}",
            random.randint(0, last_step),
            prompt,
            answer,
            most,
            random.randint(0, 2),
            follows.request_id if follows else None,
        )
        earlier.append(arrival)
        yield arrival


def _arrival(
    random: Random, number: int, prompt_tokens: int, answer_tokens: int, step: int = 0, prefix: tuple[int, ...] = ()
) -> Arrival:
    prompt = prefix + _text(random, prompt_tokens)
    return Arrival(f"r{number}", step, prompt, _text(random, answer_tokens), answer_tokens)


def _text(random: Random, tokens: int) -> tuple[int, ...]:
    return tuple(random.randint(10, 49_999) for _ in range(tokens))


def first_difference(ours: list[Step], theirs: list[Step]) -> str:
    """Where the two part, and how; empty if nowhere."""
    for index, (our, their) in enumerate(zip(ours, theirs, strict=False)):
        for name in ("preempted", "tokens", "waiting", "running", "free_blocks", "finished"):
            ours_value, theirs_value = getattr(our, name), getattr(their, name)
            if ours_value != theirs_value:
                return f"step {index}, {name}: SimServe {ours_value}, vLLM {theirs_value}"
    return "" if len(ours) == len(theirs) else f"SimServe takes {len(ours)} steps, vLLM {len(theirs)}"


def verdict(case: Case) -> tuple[list[Step], str, str]:
    """SimServe's steps; which changes of vLLM must be taken back for all to agree; what differs even then."""
    ours = run(SimServeEngine(case), case)
    for count in range(len(LATER_CHANGES) + 1):
        for changes in itertools.combinations(LATER_CHANGES, count):
            difference = first_difference(ours, run(VllmEngine(case, changes), case))
            if not difference:
                return ours, " and ".join(changes), ""
    return ours, "", difference


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare SimServe's scheduler with vLLM's own, step by step.")
    parser.add_argument("--cases", type=int, default=300, help="random cases, besides the six named ones")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first random case; the others follow")
    parser.add_argument("--show", type=int, default=5, help="how many unexplained differences to print")
    args = parser.parse_args()
    init_none_hash(sha256)
    remaining = 0
    print(f"vLLM {vllm.__version__}")
    seeds = range(args.seed, args.seed + args.cases)
    for mode in ("synchronous", "asynchronous"):
        outcomes: Counter[str] = Counter()
        steps = preemptions = 0
        for case in itertools.chain(named_cases(), map(random_case, seeds)):
            case = Case(case.name, case.limits, case.arrivals, mode == "asynchronous", case.by_priority)
            ours, changes, difference = verdict(case)
            steps += len(ours)
            preemptions += sum(len(step.preempted) for step in ours)
            outcomes[f"equal but for: {changes}" if changes else "different" if difference else "equal"] += 1
            if difference:
                remaining += 1
                if remaining <= args.show:
                    print(f"  {mode}, {case.name}: {difference}")
        print(f"{mode}: {sum(outcomes.values())} cases, {steps} steps, {preemptions} preemptions")
        for outcome, count in outcomes.most_common():
            print(f"  {count} {outcome}")
    return 1 if remaining else 0


if __name__ == "__main__":
    sys.exit(main())
