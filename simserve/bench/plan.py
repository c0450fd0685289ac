"""Everything that can be done before the clock starts: samples drawn, bodies encoded, times set, work shared out."""

from __future__ import annotations

import math
import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from simserve.bench.backends import Ask, Backend, find_backend
from simserve.bench.datasets import Drawn, Order, draw_samples
from simserve.bench.load.driver import Load
from simserve.bench.load.schedule import Schedule, Shape, make_schedule
from simserve.bench.load.worker import Job
from simserve.bench.options import BenchOptions
from simserve.bench.sample import Sample
from simserve.bench.server_facts import (
    ModelCard,
    Server,
    align_prompts,
    first_model,
    named_model,
    request_headers,
    wait_for_answer,
)
from simserve.bench.tokens import TextTokenizer, TokenCounter, find_counter
from simserve.bench.wire.address import Address, parse_address
from simserve.bench.wire.encode import Request, encode_request
from simserve.errors import ConfigError
from simserve.workload import load_tokenizer

ALIGNED = ("random", "prefix_repetition", "prefix-repetition")
NOT_DRAWN_TWICE = ("prefix_repetition", "prefix-repetition", "timed_trace")
"""Data sets whose warm-up requests are copies: others are drawn apart, and warm no cache that counts."""

NOISE = ("random", "random-mm", "timed_trace", "prefix_repetition", "prefix-repetition", "burstgpt")
STRICT = ("openai", "openai-chat", "openai-responses")
TAKE_IGNORE_EOS = ("vllm", "sglang", "simserve", "lmdeploy", "llamacpp", "scalellm", "library")
"""Backends whose servers may refuse a field that OpenAI has not, unless their models belong to one of these."""

SPARE_S = 0.25
LEAST_SPARE = 8
FIRST_CONNECTIONS_S = 1.0
LEAST_CONNECTIONS = 16
"""For a rate: connections opened at first, for a second's arrivals, and kept ready, for a quarter of a second's."""


@dataclass(frozen=True)
class Plan:
    """A run that only has to be carried out. ``requests[i]`` asks ``samples[i]`` and is due at ``schedule.due_s[i]``.

    ``notes`` are what the user should know before reading any figure.
    """

    options: BenchOptions
    server: Server
    backend: Backend
    path: str
    model: str
    tokenizer_id: str
    counter: TokenCounter
    samples: Sequence[Sample]
    requests: Sequence[Request]
    schedule: Schedule
    shape: Shape
    warmups: Sequence[Request]
    id_prefix: str
    notes: tuple[str, ...]

    @property
    def processes(self) -> int:
        """How many share the work."""
        return min(self.options.processes, len(self.requests))

    def sample_of(self, index: int) -> Sample:
        """The sample of request ``index``, which may have been sent over and over: see :class:`Load`."""
        processes, count = self.processes, len(self.samples)
        row = index % processes
        own = len(range(row, count, processes))
        return self.samples[row + processes * ((index // processes) % own)]


def make_plan(options: BenchOptions) -> Plan:
    """Prepare a run; raises a :class:`simserve.errors.SimServeError` for whatever makes it impossible."""
    target, questions = options.target, options.questions
    backend = find_backend(target.backend)
    path = _endpoint(backend, target.endpoint)
    server = Server(parse_address(target.url), request_headers(target), target.insecure)
    if options.ready_check_timeout_s > 0:
        wait_for_answer(server, options.ready_check_timeout_s)
    card = first_model(server) if target.model is None else named_model(server, target.model)
    found = find_counter(options.tokenizer, card.root)
    counter, notes = found.counter, [found.note] if found.note else []
    if card.owner == "simserve" and not counter.is_exact and not options.tokenizer.skip:
        # Our own server counts with the small tokenizer that ships, for models that have none.
        counter, notes = TextTokenizer(load_tokenizer(), card.root), []
    shape = options.shape
    drawn = _draw(options, backend, counter)
    name = target.served_model_name or card.name
    samples = drawn.samples
    if questions.dataset in ALIGNED:
        samples, note = align_prompts(server, name, samples, questions.seed)
        notes += [note] if note else []
    schedule = make_schedule(shape, len(samples), questions.seed, drawn.arrivals_s)
    if not shape.is_closed_loop and len(schedule) != len(samples):
        samples = [samples[place % len(samples)] for place in range(len(schedule))]
    models = _models(options, name, len(samples))
    ignore_eos = _ignores_eos(options, backend, card)
    if ignore_eos is None:
        notes.append(
            "answers may be shorter than asked: this server is not known to take ignore_eos; --ignore-eos sends it"
        )

    def encode(index: int, sample: Sample, model: str) -> Request:
        body = backend.encode(_ask(options, sample, model, ignore_eos=bool(ignore_eos)))
        return encode_request(index, server.address, path, server.headers, body)

    requests = [encode(index, sample, model) for index, (sample, model) in enumerate(zip(samples, models, strict=True))]
    warmups = [encode(place, one, name) for place, one in enumerate(_warmups(options, backend, counter, samples))]
    return Plan(
        options=options,
        server=server,
        backend=backend,
        path=path,
        model=name,
        tokenizer_id=options.tokenizer.name or (card.root if counter.is_exact else counter.name),
        counter=counter,
        samples=samples,
        requests=requests,
        schedule=schedule,
        shape=shape,
        warmups=warmups,
        id_prefix=options.request_id_prefix or f"bench-{secrets.token_hex(4)}-",
        notes=(*notes, *drawn.notes, *_doubts(shape, samples), *_proxy(server.address)),
    )


def make_jobs(plan: Plan) -> list[Job]:
    """The plan shared out over processes: request i goes to process i modulo their number."""
    return [_job(plan, row, plan.processes) for row in range(plan.processes)]


def _job(plan: Plan, row: int, processes: int) -> Job:
    shape, options = plan.shape, plan.options
    requests = plan.requests[row::processes]
    places = None if shape.max_concurrency is None else len(range(row, shape.max_concurrency, processes))
    slots = None
    if places is not None:
        assert shape.max_concurrency is not None
        step_s = shape.stagger_s / shape.max_concurrency
        slots = [(row + place * processes) * step_s for place in range(places)]
    repeat = shape.is_closed_loop and shape.duration_s is not None
    load = Load(
        requests,
        plan.schedule.due_s[row::processes].tolist(),
        slots,
        stop_after_s=math.inf if shape.duration_s is None else shape.duration_s,
        repeat=repeat,
        request_timeout_s=options.request_timeout_s,
        id_prefix=plan.id_prefix,
        index_step=processes,
    )
    most = len(requests) if places is None else places if repeat else min(places, len(requests))
    rate = plan.schedule.rate / processes
    if shape.is_closed_loop or not math.isfinite(rate):
        connections, spare = most, 0
    else:
        connections = min(most, max(LEAST_CONNECTIONS, math.ceil(rate * FIRST_CONNECTIONS_S)))
        spare = max(LEAST_SPARE, math.ceil(rate * SPARE_S))
    return Job(
        plan.server.address,
        plan.backend.name,
        load,
        connections,
        spare=spare,
        limit=places,
        insecure=plan.server.insecure,
        keep_text=options.keep_texts,
        warmups=plan.warmups[row::processes],
        warmup_concurrency=places,
    )


def _endpoint(backend: Backend, given: str | None) -> str:
    """The path to post to: the backend's own unless told otherwise."""
    if given is None:
        return backend.path
    if not given.partition("?")[0].rstrip("/").endswith(backend.endings):
        raise ConfigError(
            f"--endpoint {given} is none of a {backend.name} server, whose paths end in {' or '.join(backend.endings)};"
            f" leave it out for {backend.path}"
        )
    return given


def _draw(options: BenchOptions, backend: Backend, counter: TokenCounter) -> Drawn:
    """Samples for the run: for a duration at some rate, as many as will be due."""
    questions, shape = options.questions, options.shape
    count = questions.count
    if shape.duration_s is not None and not shape.is_closed_loop and not shape.keeps_arrivals:
        count = len(make_schedule(shape, 1, questions.seed))
    return draw_samples(questions.dataset, _order(options, backend, counter, count, questions.seed))


def _order(options: BenchOptions, backend: Backend, counter: TokenCounter, count: int, seed: int) -> Order:
    questions = options.questions
    return Order(
        count=count,
        seed=seed,
        counter=counter,
        backend=backend,
        path=questions.path,
        output_tokens=questions.output_tokens,
        shuffle=questions.shuffle,
        oversample=questions.oversample,
        skip_chat_template=questions.skip_chat_template,
        settings=dict(questions.settings),
    )


def _ignores_eos(options: BenchOptions, backend: Backend, card: ModelCard) -> bool | None:
    """Whether to send ``ignore_eos``; None if it would be wanted, but the server may refuse it."""
    questions = options.questions
    if questions.ignore_eos is not None:
        return questions.ignore_eos
    if questions.dataset not in NOISE or backend.is_pooling or backend.name in ("openai-audio", "deepspeed-mii"):
        return False
    return True if backend.name not in STRICT or card.owner in TAKE_IGNORE_EOS else None


def _ask(options: BenchOptions, sample: Sample, model: str, *, ignore_eos: bool) -> Ask:
    questions = options.questions
    return Ask(
        sample,
        model,
        stream=questions.stream,
        ignore_eos=ignore_eos,
        logprobs=questions.logprobs,
        continuous_usage=questions.continuous_usage,
        sampling=questions.sampling,
        extra=questions.extra_body,
    )


def _models(options: BenchOptions, name: str, count: int) -> list[str]:
    """The model that each request names."""
    modules = options.target.lora_modules
    if not modules:
        return [name] * count
    if options.target.lora_assignment == "round-robin":
        return [modules[place % len(modules)] for place in range(count)]
    return random.Random(options.questions.seed).choices(modules, k=count)


def _warmups(
    options: BenchOptions, backend: Backend, counter: TokenCounter, samples: Sequence[Sample]
) -> Sequence[Sample]:
    count = options.num_warmups
    if not count or options.questions.dataset in NOT_DRAWN_TWICE:
        return [samples[place % len(samples)] for place in range(count)]
    order = _order(options, backend, counter, count, options.questions.seed + 1)
    return draw_samples(options.questions.dataset, order).samples


def _doubts(shape: Shape, samples: Sequence[Sample]) -> list[str]:
    """What is odd about the load itself."""
    same = len({sample.output_tokens for sample in samples}) == 1 and samples[0].output_tokens > 1
    closed = shape.is_closed_loop and shape.max_concurrency is not None and not shape.stagger_s
    if closed and same and len(samples) > 2 * (shape.max_concurrency or 0):
        return ["all answers have one length and start together, so they may run in lockstep; --stagger S spreads them"]
    return []


def _proxy(address: Address) -> list[str]:
    """A word about a proxy that others would use: it would be measured with the server."""
    from urllib.request import getproxies, proxy_bypass

    if address.scheme not in getproxies() or proxy_bypass(address.host):
        return []
    return [f"the {address.scheme} proxy of the environment is not used: its time would be taken for the server's"]
