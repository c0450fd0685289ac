"""Options that say which requests come: a trace, or requests drawn at random; and who waits for whom."""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from simserve.cli.options import number, whole_number
from simserve.errors import ConfigError

if TYPE_CHECKING:
    from simserve.metrics.result import Result
    from simserve.simulation import Source
    from simserve.workload import ArrivalProcess, Sessions, ThinkTime, Workload

DEFAULT_PROMPTS, DEFAULT_RATE, DEFAULT_INPUT, DEFAULT_OUTPUT = 1000, math.inf, "1024", "128"
"""As in ``vllm bench serve``."""

DEFAULT_TURNS = "4"

LENGTH = "N|DISTRIBUTION"

RAMP = ("ramp_up_strategy", "ramp_up_start_rps", "ramp_up_end_rps")
BURSTS = ("burst_rate", "burst_on_s", "burst_off_s")
ADAPTERS = ("lora_adapters", "lora_share", "lora_zipf")
SESSIONS = ("turns", "system_prompt_len")
TRACE = ("window", "rate_scale", "max_input", "speed")
SYNTHETIC = (
    "num_prompts", "request_rate", "burstiness", *RAMP, *BURSTS, "input_len", "output_len", "sessions", *SESSIONS,
)  # fmt: skip
"""Options by what they are for."""


class Offered(NamedTuple):
    """Requests, and what a result says of them beyond the name: how they were drawn or changed."""

    source: Workload | Source
    labels: Result


def add_workload_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options; read them with :func:`offered_requests`."""
    group = parser.add_argument_group("workload", "Either --trace or --synthetic.")
    group.add_argument(
        "--trace",
        metavar="FILE|URL",
        help="requests as recorded: CSV or JSON Lines, path or http(s); or a ServeGen client pool: .tar.gz or folder",
    )
    group.add_argument("--synthetic", action="store_true", help="requests drawn at random")
    group.add_argument("--seed", type=whole_number, metavar="N", help="the same seed gives the same run (0)")
    _add_synthetic_arguments(parser)
    _add_user_arguments(parser)
    _add_adapter_arguments(parser)
    _add_trace_arguments(parser)


def _add_synthetic_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "synthetic workload",
        "A length is a number of tokens, uniform:LOW:HIGH, lognormal:MEAN:SIGMA (sigma of the logarithm),"
        " zipf:EXPONENT:MAX, or trace:FILE to draw from that trace's.",
    )
    group.add_argument("--num-prompts", type=whole_number, metavar="N", help="number of requests (1000)")
    group.add_argument("--input-len", metavar=LENGTH, help="tokens in each prompt (1024)")
    group.add_argument("--output-len", metavar=LENGTH, help="tokens in each answer (128)")
    group.add_argument(
        "--request-rate",
        type=number,
        metavar="R",
        help="requests (or sessions) per second; inf is all at once (inf); also for a client pool (its own)",
    )
    group.add_argument(
        "--burstiness", type=number, metavar="B", help="gamma shape of the gaps: 1 Poisson, <1 bursts, inf even (1)"
    )
    group.add_argument("--ramp-up-strategy", choices=("linear", "exponential"), help="let the rate go, not stay")
    group.add_argument("--ramp-up-start-rps", type=number, metavar="R", help="rate at the first request")
    group.add_argument("--ramp-up-end-rps", type=number, metavar="R", help="rate at the last request")
    group.add_argument(
        "--burst-rate", type=number, metavar="R", help="rate in bursts; --request-rate is that between them (0)"
    )
    group.add_argument("--burst-on-s", type=number, metavar="S", help="seconds that a burst lasts")
    group.add_argument("--burst-off-s", type=number, metavar="S", help="seconds between bursts")


def _add_user_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("users", "For requests that wait for the answers to others.")
    group.add_argument(
        "--max-concurrency",
        type=whole_number,
        metavar="N",
        help="N users, who each wait for an answer before the next request (or session)",
    )
    group.add_argument("--think-time", metavar="S[:CV]", help="seconds from an answer to the user's next request (0)")
    group.add_argument(
        "--stagger", type=number, metavar="S", help="the users of --max-concurrency come evenly over S seconds (0)"
    )
    group.add_argument(
        "--sessions",
        type=whole_number,
        metavar="N",
        help="N conversations, not single requests: every prompt repeats all before it and adds --input-len",
    )
    group.add_argument("--turns", metavar=LENGTH, help=f"prompts in each session ({DEFAULT_TURNS})")
    group.add_argument("--system-prompt-len", type=whole_number, metavar="N", help="tokens all sessions share (0)")


def _add_adapter_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("LoRA", "Which adapter a request (or session) asks for; needs --enable-lora.")
    group.add_argument("--lora-adapters", type=whole_number, metavar="N", help="draw from so many adapters (none)")
    group.add_argument("--lora-share", type=number, metavar="F", help="share of the requests that have one (1)")
    group.add_argument(
        "--lora-zipf", type=number, metavar="E", help="the i-th is as popular as i**-E: 0 is all alike (0)"
    )


def _add_trace_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("changes to a trace", "Made in this order.")
    group.add_argument("--window", metavar="START:LENGTH", help="only these seconds of it")
    group.add_argument(
        "--rate-scale",
        type=number,
        metavar="F",
        help="F times as many requests: below 1 chosen at random, above 1 with copies, whose prompts are their own",
    )
    group.add_argument("--max-input", type=whole_number, metavar="N", help="leave out prompts of more tokens")
    group.add_argument("--speed", type=number, metavar="F", help="time runs F times faster")


def offered_requests(args: argparse.Namespace, block_size: int) -> Offered:
    """What ``args`` describe; sessions share prompts in units of ``block_size`` tokens.

    Raises :class:`ConfigError` for options that contradict each other, :class:`WorkloadError` for a bad value or trace.
    """
    if args.synthetic == (args.trace is not None):
        raise ConfigError("which requests? Give either --trace FILE or --synthetic")
    think_time = _think_time(args)
    if args.lora_adapters is None:
        _refuse(args, ADAPTERS, "is of adapters that are drawn; say from how many with --lora-adapters")
    if args.synthetic:
        _refuse(args, TRACE, "changes a --trace and synthetic requests are drawn as you like them; leave it out")
        if args.sessions is not None:
            return _sessions(args, think_time, block_size)
        _refuse(args, SESSIONS, "is for --sessions; give the number of sessions too, or leave it out")
        return _with_users(args, _with_adapters(args, _synthetic(args)), think_time, _drawn_labels(args))
    workload, labels = _trace(args)
    if workload.adapters is not None:
        _refuse(args, ADAPTERS, "draws adapters, which this trace names; leave it out")
    return _with_users(args, _with_adapters(args, workload), think_time, labels)


def _synthetic(args: argparse.Namespace) -> Workload:
    from simserve.workload import parse_length, synthetic_workload

    return synthetic_workload(
        DEFAULT_PROMPTS if args.num_prompts is None else args.num_prompts,
        _arrivals(args),
        parse_length(args.input_len or DEFAULT_INPUT, "--input-len", "input_tokens"),
        parse_length(args.output_len or DEFAULT_OUTPUT, "--output-len", "output_tokens"),
        _seed(args),
    )


def _sessions(args: argparse.Namespace, think_time: ThinkTime, block_size: int) -> Offered:
    from simserve.simulation import Conversations
    from simserve.workload import draw_sessions, parse_length

    _refuse(args, ("stagger",), "spreads users who send single requests; sessions begin at --request-rate")
    _refuse(args, ("num_prompts",), "counts single requests; with --sessions give --turns")
    sessions = draw_sessions(
        args.sessions,
        _arrivals(args),
        parse_length(args.turns or DEFAULT_TURNS, "--turns"),
        parse_length(args.input_len or DEFAULT_INPUT, "--input-len", "input_tokens"),
        parse_length(args.output_len or DEFAULT_OUTPUT, "--output-len", "output_tokens"),
        think_time,
        _seed(args),
        system_tokens=args.system_prompt_len or 0,
        unit_tokens=block_size,
    )
    return Offered(Conversations(_with_adapters(args, sessions), args.max_concurrency), _drawn_labels(args))


def _with_users(args: argparse.Namespace, workload: Workload, think_time: ThinkTime, labels: Result) -> Offered:
    if args.max_concurrency is None:
        _refuse(args, ("stagger",), "spreads the first requests of users; say how many with --max-concurrency")
        return Offered(workload, labels)
    from simserve.simulation import ClosedLoop
    from simserve.workload import random_streams

    think_s = think_time.draw(random_streams(_seed(args)).think_times, len(workload))
    return Offered(ClosedLoop(workload, args.max_concurrency, think_s, args.stagger or 0.0), labels)


Requests = TypeVar("Requests", "Workload", "Sessions")


def _with_adapters(args: argparse.Namespace, requests: Requests) -> Requests:
    """``requests`` with adapters drawn for each, or each session, if ``args`` ask for any."""
    if args.lora_adapters is None:
        return requests
    from simserve.workload import AdapterChoice, Sessions

    share = 1.0 if args.lora_share is None else args.lora_share
    choice = AdapterChoice(args.lora_adapters, share, args.lora_zipf or 0.0)
    count = len(requests.start_s) if isinstance(requests, Sessions) else len(requests)
    return replace(requests, adapters=choice.draw(_seed(args), count))


def _think_time(args: argparse.Namespace) -> ThinkTime:
    from simserve.workload import parse_think_time

    if args.think_time is not None and args.max_concurrency is None and args.sessions is None:
        raise ConfigError(
            "--think-time is for users who wait for answers; say how many with --max-concurrency, or give --sessions"
        )
    return parse_think_time(args.think_time or "0")


def _arrivals(args: argparse.Namespace) -> ArrivalProcess:
    from simserve.workload import BurstArrivals, RampArrivals, SteadyArrivals

    burstiness = 1.0 if args.burstiness is None else args.burstiness
    if _given(args, RAMP):
        _refuse(args, ("request_rate", *BURSTS), "cannot go with a ramp, which says the rate itself; leave one out")
        _need_all(args, RAMP)
        return RampArrivals(args.ramp_up_start_rps, args.ramp_up_end_rps, args.ramp_up_strategy, burstiness)
    if _given(args, BURSTS):
        _need_all(args, BURSTS)
        return BurstArrivals(args.burst_rate, args.burst_on_s, args.burst_off_s, args.request_rate or 0.0, burstiness)
    return SteadyArrivals(DEFAULT_RATE if args.request_rate is None else args.request_rate, burstiness)


def _trace(args: argparse.Namespace) -> tuple[Workload, Result]:
    """The trace as changed by the options, and what a result says of it."""
    from simserve.workload import drop_long_prompts, is_client_pool, speed_up

    allowed = ("request_rate",) if is_client_pool(args.trace) else ()
    drawn = [name for name in SYNTHETIC if name not in allowed]
    _refuse(args, drawn, "shapes a --synthetic workload and a trace is what it is; leave it out with --trace")
    workload = _from_pool(args) if allowed else _from_file(args)
    labels: Result = {"dropped_requests": workload.dropped_requests} | _labels(args, (*allowed, *TRACE))
    if args.max_input is not None:
        before = len(workload)
        workload = drop_long_prompts(workload, args.max_input)
        labels["too_long_requests"] = before - len(workload)
        print(f"left out with prompts of more than {args.max_input:,} tokens: {before - len(workload):,} requests",
              file=sys.stderr)  # fmt: skip
    if args.speed is not None:
        workload = speed_up(workload, args.speed)
    return workload, labels


def _from_file(args: argparse.Namespace) -> Workload:
    from simserve.workload import cut_window, read_trace, scale_rate

    workload = read_trace(args.trace)
    if left_out := workload.dropped_requests:
        print(f"left out as failed when {workload.name} was taken: {left_out:,} requests", file=sys.stderr)
    if args.window is not None:
        workload = cut_window(workload, *_window(args.window))
    return workload if args.rate_scale is None else scale_rate(workload, args.rate_scale, _seed(args))


def _from_pool(args: argparse.Namespace) -> Workload:
    from simserve.workload import read_client_pool

    start_s, length_s = (0.0, math.inf) if args.window is None else _window(args.window)
    return read_client_pool(args.trace).draw(
        _seed(args),
        start_s=start_s,
        length_s=length_s,
        request_rate=args.request_rate,
        rate_scale=1.0 if args.rate_scale is None else args.rate_scale,
    )


def _window(text: str) -> tuple[float, float]:
    try:
        start, length = text.split(":")
        return float(start), float(length)
    except ValueError:
        raise ConfigError(f"--window is START:LENGTH in seconds, such as 600:60, not '{text}'") from None


def _drawn_labels(args: argparse.Namespace) -> Result:
    """As ``vllm bench serve`` has them, then what was given besides; the lengths are in the workload's name."""
    labels: Result = {"burstiness": 1.0, "max_concurrency": None, "seed": _seed(args)}
    if not _given(args, (*RAMP, *BURSTS)):
        labels["request_rate"] = _plain(DEFAULT_RATE)
    return labels | _labels(args, ("request_rate", "burstiness", *RAMP, *BURSTS, "sessions", *SESSIONS))


def _labels(args: argparse.Namespace, names: tuple[str, ...]) -> Result:
    given = _given(args, (*names, *ADAPTERS, "max_concurrency", "stagger", "think_time", "seed"))
    return {name: _plain(getattr(args, name)) for name in given}


def _plain(value: str | int | float) -> str | int | float:
    """``value`` as JSON can have it."""
    return "inf" if value == math.inf else value


def _seed(args: argparse.Namespace) -> int:
    return 0 if args.seed is None else int(args.seed)


def _given(args: argparse.Namespace, names: tuple[str, ...] | list[str]) -> list[str]:
    return [name for name in names if getattr(args, name) is not None]


def _refuse(args: argparse.Namespace, names: tuple[str, ...] | list[str], why: str) -> None:
    if given := _given(args, names):
        raise ConfigError(f"{_flag(given[0])} {why}")


def _need_all(args: argparse.Namespace, names: tuple[str, ...]) -> None:
    given = _given(args, names)
    if missing := [name for name in names if name not in given]:
        raise ConfigError(f"{_flag(given[0])} says not enough; give {' and '.join(map(_flag, missing))} too")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
