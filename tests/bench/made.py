"""Outcomes and runs made up for tests of figures and reports."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from simserve.bench.backends import find_backend
from simserve.bench.load.health import Health
from simserve.bench.load.run import LoadResult
from simserve.bench.load.schedule import Schedule, Shape, make_schedule
from simserve.bench.measure.outcome import Failure, Outcome
from simserve.bench.options import BenchOptions, Questions, Target
from simserve.bench.plan import Plan
from simserve.bench.run import BenchRun, assess
from simserve.bench.sample import Sample
from simserve.bench.server_facts import Server
from simserve.bench.tokens import Estimate
from simserve.bench.wire.address import parse_address
from simserve.bench.wire.encode import Request

START_S = 1000.0
STARTED = datetime(2026, 1, 2, 3, 4, 5)


def outcome(
    index: int = 0,
    sent_s: float = 0.0,
    ttft_s: float = 0.1,
    itl_s: float = 0.02,
    tokens: int = 5,
    *,
    due_s: float | None = None,
    ready_s: float | None = None,
    failure: Failure | None = None,
    input_tokens: int | None = 10,
    **fields: Any,
) -> Outcome:
    """A request whose tokens came at even distances; times count from the run's start."""
    times = [START_S + sent_s + ttft_s + step * itl_s for step in range(tokens)]
    ready_s = sent_s if ready_s is None else ready_s
    values: dict[str, Any] = {
        "index": index,
        "request_id": f"id-{index}",
        "due_s": START_S + (ready_s if due_s is None else due_s),
        "ready_s": START_S + ready_s,
        "sent_s": START_S + sent_s,
        "end_s": times[-1] if times else START_S + sent_s + ttft_s,
        "token_times_s": array("d", times),
        "tokens_at": array("l"),
        "input_tokens": input_tokens,
        "output_tokens": tokens,
        "cached_tokens": None,
        "text": "",
        "failure": failure,
        "server_queue_s": math.nan,
        "server_ttft_s": math.nan,
        "reads": tokens,
        "events": tokens,
    }
    return Outcome(**(values | fields))


def failed(index: int = 0, sent_s: float = 0.0, failure: Failure | None = None) -> Outcome:
    """A request that did not get its answer."""
    return outcome(index, sent_s, tokens=0, failure=failure or Failure("HTTP 500 Internal Server Error", "boom", 500))


def plan(shape: Shape, count: int, backend: str = "openai-chat", **questions: Any) -> Plan:
    """A plan whose requests are never sent."""
    options = BenchOptions(
        Target("http://127.0.0.1:8000", backend, model="org/a-model"), Questions(count=count, **questions), shape
    )
    schedule = Schedule([0.0], 1.0) if shape.keeps_arrivals else make_schedule(shape, count, 0)  # type: ignore[arg-type]
    kind = find_backend(backend)
    return Plan(
        options=options, server=Server(parse_address(options.target.url), {}), backend=kind, path=kind.path,
        model="org/a-model", tokenizer_id="estimate", counter=Estimate(), samples=[Sample("hi", 10, 5)] * count,
        requests=[Request(index, b"", b"") for index in range(count)], schedule=schedule, shape=shape, warmups=[],
        id_prefix="id-", notes=("a note",),
    )  # fmt: skip


def run_of(
    outcomes: Sequence[Outcome],
    shape: Shape | None = None,
    *,
    health: Health | None = None,
    slos_s: Mapping[Any, float] | None = None,
    counted: Mapping[str, int] | None = None,
    backend: str = "openai-chat",
    interrupted: bool = False,
) -> BenchRun:
    """A run that gave ``outcomes``."""
    shape = shape or Shape(max_concurrency=4)
    health = health or Health(cpu_s=0.1, wall_s=10.0, loop_lags_s=[0.001] * 20)
    load = LoadResult(list(outcomes), START_S, [health], interrupted)
    made = plan(shape, max(len(outcomes), 1), backend)
    ok = sum(one.ok for one in outcomes)
    return assess(made, load, list(outcomes), counted or {"usage": ok}, STARTED, slos_s or {})
