"""``simserve plan``: which hardware, how many, which settings, at what cost, and where it breaks."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from simserve.cli.options import number, whole_number
from simserve.cli.sweep import executor_of, given_settings
from simserve.errors import ConfigError

if TYPE_CHECKING:
    from simserve.sweep.plan import Plan, Question
    from simserve.sweep.plan.answer import OnStep
    from simserve.sweep.settings import Settings, Value

DEFAULT_INPUT, DEFAULT_OUTPUT = "1024", "128"

OWN = (
    "model", "hardware", "tensor_parallel_size", "npu_num", "request_rate", "max_concurrency", "quantization",
    "num_prompts", "stagger", "bands", "metric_percentiles", "replicas", "router", "cluster", "synthetic",
)  # fmt: skip
"""Settings that the plan chooses itself, or that it has an option of its own for."""

TRAFFIC = ("trace", "window", "rate_scale", "max_input", "speed", "input_len", "output_len", "burstiness", "seed",
           "think_time")  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``simserve plan``; engine options of ``simserve simulate`` hold for every candidate."""
    group = parser.add_argument_group("the question")
    group.add_argument("--model", metavar="NAME", required=True, help="a model that SimServe ships, or its folder")
    group.add_argument("--users", type=whole_number, metavar="N", help="users who each wait for an answer")
    group.add_argument("--request-rate", type=number, metavar="R", help="or requests per second")
    group.add_argument("--slo", nargs="+", required=True, metavar="TERM", help="limits: ttft:p99=2s tpot:p99=60ms")
    may = parser.add_argument_group("what may be used")
    may.add_argument("--hardware", metavar="NAME,NAME", help="profiles (all GPUs, NPUs and TPUs)")
    may.add_argument("--tensor-parallel-size", "-tp", metavar="N,N", help="devices that share a model (1,2,4,8)")
    may.add_argument("--quantization", metavar="METHOD,none", help="of weights, see simserve simulate (none)")
    may.add_argument("--budget", type=number, metavar="USD", help="at most so much an hour")
    may.add_argument("--max-devices", type=whole_number, default=256, metavar="N", help="at most so many (256)")
    may.add_argument("--price", nargs="+", default=[], metavar="NAME=USD", help="of a device per hour (the profile's)")
    running = parser.add_argument_group("running it")
    running.add_argument("--jobs", type=whole_number, metavar="N", help="processes (one for each core)")
    running.add_argument("--json", action="store_true", help="all of it as one JSON object")
    traffic = parser.add_argument_group(
        "traffic and engine",
        "--input-len, --output-len, --trace, --seed, --engine-preset, --policy and all others of simserve simulate.",
    )
    _add_settings(traffic, parser)


def _add_settings(group: argparse._ArgumentGroup, parser: argparse.ArgumentParser) -> None:
    from simserve.cli.settings import setting_names

    for name in setting_names():
        flag = f"--{name.replace('_', '-')}"
        if name not in OWN and flag not in parser._option_string_actions:
            group.add_argument(flag, dest=f"axis_{name}", nargs="?", const=True, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Plan and print: the answer, the table, and commands to try it."""
    from simserve.cli.settings import parsed, simulate_settings
    from simserve.sweep.plan import make_plan
    from simserve.sweep.plan.words import as_json, report

    args.executor, args.ray_address = "local", None
    question = _question(args)
    parsed({**question.traffic, **question.engine, "model": question.model, "hardware": "A100"})
    with _progress() as on_step:
        plan = make_plan(question, simulate_settings, executor_of(args), on_step)
    if args.json:
        print(json.dumps(as_json(plan), indent=1))
    else:
        _print(plan, report(plan))
    return 0 if plan.offers else 1


def _print(plan: Plan, parts: Sequence[Any]) -> None:
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 200, soft_wrap=False)
    for part in parts:
        console.print(part, highlight=False)
    for line in _commands(plan):
        print(line)


def _commands(plan: Plan) -> Iterator[str]:
    """Not through rich: a command must not be broken in two."""
    from simserve.sweep.plan.answer import simulate_command, vllm_command

    for place, offer in enumerate(plan.offers, start=1):
        many = f", {offer.replicas} of them behind a router" if offer.replicas > 1 else ""
        yield f"{place}. see it:  {simulate_command(offer)}"
        yield f"   run it:  {vllm_command(offer)}{'   #' + many[1:] if many else ''}"


def _question(args: argparse.Namespace) -> Question:
    from simserve.sweep.axes import split_list
    from simserve.sweep.plan import Question
    from simserve.sweep.slo import parse_slo

    traffic, engine = _settings(args)
    if args.users is None and args.request_rate is None and "trace" not in traffic:
        raise ConfigError("how much is asked? Give --users N, --request-rate R or a --trace")
    sizes = [whole_number(one) for one in split_list(args.tensor_parallel_size or "")]
    methods = split_list(args.quantization or "none")
    return Question(
        model=args.model,
        slo=parse_slo(args.slo),
        traffic=traffic,
        users=args.users,
        request_rate=args.request_rate,
        hardware=tuple(split_list(args.hardware or "")),
        tensor_parallel_sizes=tuple(sizes),
        quantizations=tuple(None if method == "none" else method for method in methods),
        engine=engine,
        budget_usd_per_hour=args.budget,
        most_devices=args.max_devices,
        prices=dict(map(_price, args.price)),
        answer_tokens=_mean_length(str(traffic.get("output_len", DEFAULT_OUTPUT))),
    )


def _settings(args: argparse.Namespace) -> tuple[Settings, Settings]:
    """(what comes, how engines are set up)."""
    traffic: dict[str, Value] = {}
    engine: dict[str, Value] = {}
    for name, values in given_settings(args):
        if len(values) > 1:
            raise ConfigError(f"--{name.replace('_', '-')} takes one value here; simserve sweep takes several")
        (traffic if name in TRAFFIC else engine)[name] = values[0]
    if "trace" not in traffic:
        traffic = {"synthetic": True, "input_len": DEFAULT_INPUT, "output_len": DEFAULT_OUTPUT, **traffic}
    elif args.request_rate is not None:
        raise ConfigError("a trace has its own rate; change it with --rate-scale, or leave --request-rate out")
    return traffic, engine


def _price(text: str) -> tuple[str, float]:
    from simserve.hardware import load_hardware

    name, _, usd = text.partition("=")
    try:
        price = float(usd)
    except ValueError:
        raise ConfigError(f"--price is NAME=USD per hour, such as A100=1.50, not '{text}'") from None
    if not 0 <= price < float("inf"):
        raise ConfigError(f"--price {text}: give 0 USD per hour or more")
    return load_hardware(name).name, price


def _mean_length(text: str) -> float:
    import numpy as np

    from simserve.workload import parse_length

    return float(parse_length(text, "--output-len", "output_tokens").draw(np.random.default_rng(0), 1000).mean())


@contextmanager
def _progress() -> Iterator[OnStep]:
    """A bar on a terminal; elsewhere a line for each stage."""
    stream = sys.stderr
    if not stream.isatty():
        yield lambda what, done, total: print(f"{what}: {total}", file=stream) if done == 0 else None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(file=stream), transient=True) as bar:
        task = bar.add_task("plan")
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)
