"""Options of ``simserve bench``: those of ``vllm bench serve`` by their names, and a few of our own."""

from __future__ import annotations

import argparse
import json
import math
from typing import TYPE_CHECKING, Any

from simserve.bench.names import BACKEND_NAMES
from simserve.cli.bench_datasets import add_dataset_arguments, dataset_settings, forced_output
from simserve.cli.options import number, whole_number
from simserve.errors import ConfigError

if TYPE_CHECKING:
    from simserve.bench.load.schedule import Shape
    from simserve.bench.options import BenchOptions

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8000

SAMPLING = (
    "temperature", "top_p", "top_k", "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty",
)  # fmt: skip


def add_bench_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all options; read them with :func:`bench_options`."""
    _add_target(parser)
    _add_load(parser)
    _add_requests(parser)
    add_dataset_arguments(parser)


def _add_target(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("server", "The key is taken from OPENAI_API_KEY.")
    group.add_argument(
        "--backend",
        "--endpoint-type",
        default="openai",
        metavar="NAME",
        help=f"kind of server: {', '.join(BACKEND_NAMES)} (openai)",
    )
    group.add_argument("--base-url", metavar="URL", help="the server's address (http://HOST:PORT)")
    group.add_argument("--host", default=DEFAULT_HOST, help=f"the server's machine ({DEFAULT_HOST})")
    group.add_argument(
        "--port", type=whole_number, default=DEFAULT_PORT, metavar="N", help=f"its port ({DEFAULT_PORT})"
    )
    group.add_argument("--endpoint", metavar="PATH", help="path of the API (follows from the backend)")
    group.add_argument("--model", metavar="NAME", help="what to ask for (the first that the server lists)")
    group.add_argument("--served-model-name", metavar="NAME", help="what the server calls the model (--model)")
    group.add_argument("--lora-modules", nargs="+", metavar="NAME", help="adapters to ask for instead of the model")
    group.add_argument(
        "--lora-assignment",
        choices=("random", "round-robin"),
        default="random",
        help="which request asks for which (random)",
    )
    group.add_argument("--header", nargs="*", action="extend", default=[], metavar="NAME=VALUE", help="HTTP headers")
    group.add_argument("--insecure", action="store_true", help="accept any TLS certificate")
    group.add_argument("--tokenizer", metavar="NAME", help="folder, file or hub name (the model's, if it is here)")
    group.add_argument(
        "--tokenizer-mode",
        choices=("auto", "hf", "slow"),
        default="auto",
        help="auto reads a tokenizer.json, hf and slow use transformers (auto)",
    )
    group.add_argument("--trust-remote-code", action="store_true", help="let the tokenizer run code of its own")
    group.add_argument("--skip-tokenizer-init", action="store_true", help="estimate tokens from characters")


def _add_load(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("load")
    group.add_argument("--num-prompts", type=whole_number, default=1000, metavar="N", help="number of requests (1000)")
    group.add_argument(
        "--request-rate",
        type=number,
        metavar="R",
        help="requests per second; inf waits only for --max-concurrency (inf, or as a trace has it)",
    )
    group.add_argument(
        "--burstiness",
        type=number,
        default=1.0,
        metavar="B",
        help="gamma shape of the gaps: 1 Poisson, <1 bursts, inf even (1)",
    )
    group.add_argument("--max-concurrency", type=whole_number, metavar="N", help="most requests under way at once")
    group.add_argument("--ramp-up-strategy", choices=("linear", "exponential"), help="let the rate rise")
    group.add_argument("--ramp-up-start-rps", type=number, metavar="R", help="rate at the first request")
    group.add_argument("--ramp-up-end-rps", type=number, metavar="R", help="rate at the last request")
    group.add_argument("--duration", type=number, metavar="S", help="send for so many seconds, however many requests")
    group.add_argument(
        "--stagger",
        type=number,
        default=0.0,
        metavar="S",
        help="spread the first requests of a closed loop over so many seconds (0)",
    )
    group.add_argument("--self-timed", action="store_true", help="timed_trace: keep its arrivals, which is the default")
    group.add_argument("--processes", type=whole_number, default=1, metavar="N", help="processes that send (1)")
    group.add_argument(
        "--num-warmups", type=whole_number, default=0, metavar="N", help="requests that do not count (0)"
    )
    group.add_argument(
        "--ready-check-timeout-sec",
        type=number,
        default=0.0,
        metavar="S",
        help="wait so long for a first good answer (0: do not ask)",
    )
    group.add_argument("--request-timeout", type=number, metavar="S", help="give a request up after so long (6 hours)")
    group.add_argument("--seed", type=whole_number, default=0, metavar="N", help="the same seed sends the same (0)")


def _add_requests(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("requests")
    group.add_argument(
        "--ignore-eos", action="store_true", help="generate all tokens asked for (on for noise, if the server takes it)"
    )
    group.add_argument("--logprobs", type=whole_number, metavar="N", help="ask for log probabilities")
    group.add_argument("--no-stream", action="store_true", help="whole answers; hf: load the data set first")
    group.add_argument("--continuous-usage", action="store_true", help="ask for token counts in every chunk (vLLM)")
    group.add_argument("--extra-body", type=_json_object, default={}, metavar="JSON", help="fields of every body")
    group.add_argument("--request-id-prefix", metavar="TEXT", help="what request ids begin with (bench-<random>-)")
    group.add_argument("--profile", action="store_true", help="POST /start_profile before and /stop_profile after")
    for name in SAMPLING:
        kind = whole_number if name == "top_k" else number
        group.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="X", help=f"{name} of every request")


def bench_options(args: argparse.Namespace, *, keep_texts: bool) -> BenchOptions:
    """The run that ``args`` describe; raises :class:`ConfigError` for what contradicts itself."""
    from simserve.bench.options import DEFAULT_TIMEOUT_S, BenchOptions, Target
    from simserve.bench.tokens import TokenizerOptions

    return BenchOptions(
        target=Target(
            url=args.base_url or _url(args.host, args.port),
            backend=args.backend,
            endpoint=args.endpoint,
            model=args.model,
            served_model_name=args.served_model_name,
            headers=pairs(args.header, "--header"),
            insecure=args.insecure,
            lora_modules=args.lora_modules or (),
            lora_assignment=args.lora_assignment,
        ),
        questions=_questions(args),
        shape=_shape(args),
        tokenizer=TokenizerOptions(
            args.tokenizer, args.tokenizer_mode, args.trust_remote_code, args.skip_tokenizer_init
        ),
        processes=args.processes,
        num_warmups=args.num_warmups,
        ready_check_timeout_s=args.ready_check_timeout_sec,
        request_timeout_s=DEFAULT_TIMEOUT_S if args.request_timeout is None else args.request_timeout,
        request_id_prefix=args.request_id_prefix,
        profile=args.profile,
        keep_texts=keep_texts,
    )


def _questions(args: argparse.Namespace) -> Any:
    from simserve.bench.options import Questions

    return Questions(
        dataset=args.dataset_name,
        path=args.dataset_path,
        count=args.num_prompts,
        seed=args.seed,
        output_tokens=forced_output(args),
        shuffle=not args.disable_shuffle,
        oversample=not args.no_oversample,
        skip_chat_template=args.skip_chat_template,
        settings=dataset_settings(args),
        stream=not args.no_stream,
        ignore_eos=True if args.ignore_eos else None,
        logprobs=args.logprobs,
        continuous_usage=args.continuous_usage,
        sampling={name: value for name in SAMPLING if (value := getattr(args, name)) is not None},
        extra_body=args.extra_body,
    )


def _shape(args: argparse.Namespace) -> Shape:
    from simserve.bench.load.schedule import Shape

    ramp = None
    ends = (args.ramp_up_start_rps, args.ramp_up_end_rps)
    if args.ramp_up_strategy is not None:
        if None in ends:
            raise ConfigError("--ramp-up-strategy says not enough; give --ramp-up-start-rps and --ramp-up-end-rps too")
        ramp = (args.ramp_up_strategy, *ends)
    elif ends != (None, None):
        raise ConfigError("--ramp-up-start-rps and --ramp-up-end-rps say not enough; give --ramp-up-strategy too")
    is_trace = args.dataset_name == "timed_trace"
    if args.self_timed and not is_trace:
        raise ConfigError("--self-timed is for --dataset-name timed_trace, which has times of its own")
    if args.self_timed and (args.request_rate is not None or ramp is not None):
        raise ConfigError("--self-timed keeps the trace's arrivals; leave the rate out")
    return Shape(
        request_rate=math.inf if args.request_rate is None else args.request_rate,
        burstiness=args.burstiness,
        ramp=ramp,
        max_concurrency=args.max_concurrency,
        duration_s=args.duration,
        stagger_s=args.stagger,
        keeps_arrivals=is_trace and args.request_rate is None and ramp is None,
    )


def pairs(words: list[str], option: str) -> dict[str, str]:
    """``NAME=VALUE`` words as a dictionary; raises :class:`ConfigError` for one that has no ``=``."""
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise ConfigError(f"{option} takes NAME=VALUE, not '{word}'")
        found[name] = value
    return found


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"'{text}' is not a JSON object")
    return value
