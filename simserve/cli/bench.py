"""``simserve bench``: load any OpenAI-like server and say truly how it did."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simserve.cli.bench_options import add_bench_arguments, bench_options, pairs
from simserve.cli.options import number
from simserve.cli.simulate import PIPE_COLUMNS, percentile_list
from simserve.errors import ConfigError

if TYPE_CHECKING:
    from simserve.bench.plan import Plan
    from simserve.bench.run import BenchRun
    from simserve.bench.self_test.measure import SelfTest

OK, MISSED, INTERRUPTED = 0, 1, 130
"""Exit codes: done; an SLO was missed or what ``--fail-on`` names came true; Ctrl-C, after the report."""

PERCENTILES, CLASSIC_PERCENTILES = (90.0, 99.0), (99.0,)
CLASSIC_METRICS = ("ttft", "tpot", "itl")
FAIL_ON = ("slo", "failures", "verdict", "never")
GOODPUT_TARGET = 0.99


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``simserve bench``."""
    add_bench_arguments(parser)
    group = parser.add_argument_group("figures")
    group.add_argument(
        "--percentile-metrics",
        metavar="NAME,NAME,...",
        help="out of ttft,tpot,itl,e2el,client_queue_time,e2el_including_client_queue (the first four)",
    )
    group.add_argument("--metric-percentiles", type=percentile_list, metavar="P,P,...", help="percentiles (90,99)")
    group.add_argument("--goodput", nargs="+", metavar="NAME:MS", help="SLOs of a request, such as ttft:200 tpot:50")
    group.add_argument(
        "--goodput-target",
        type=number,
        default=GOODPUT_TARGET,
        metavar="SHARE",
        help=f"share of requests that must meet the SLOs ({GOODPUT_TARGET:g})",
    )
    group.add_argument(
        "--fail-on", default="slo", metavar="WHAT,WHAT", help=f"exit with 1 for any of {', '.join(FAIL_ON)} (slo)"
    )
    group.add_argument(
        "--self-test",
        nargs="?",
        choices=("first", "only"),
        const="first",
        help="measure this client's own error at this load before the run, or only that",
    )
    group = parser.add_argument_group("output")
    group.add_argument(
        "--report",
        choices=("table", "vllm"),
        default="table",
        help="tables, or the block that vllm bench serve prints (table)",
    )
    group.add_argument("--lang", choices=("en", "zh"), default="en", help="language of the labels (en)")
    group.add_argument("--out", type=Path, metavar="DIR", help="write result, requests, workbook and page here")
    group.add_argument("--save-result", action="store_true", help="write the result as JSON, as vLLM does")
    group.add_argument("--save-detailed", action="store_true", help="with every request's times and text in it")
    group.add_argument("--append-result", action="store_true", help="add the result to the file as a further line")
    group.add_argument("--result-dir", type=Path, metavar="DIR", help="folder of the result (.)")
    group.add_argument("--result-filename", metavar="NAME", help="its name (made of backend, load, model and date)")
    group.add_argument("--metadata", nargs="*", default=[], metavar="NAME=VALUE", help="texts to keep in the result")
    group.add_argument("--label", metavar="TEXT", help="what the result's name begins with (the backend)")
    group.add_argument("--disable-tqdm", action="store_true", help="show no progress")


def run(args: argparse.Namespace) -> int:
    """Load the server, print and save what came out; the exit code says whether SLOs were met."""
    from simserve.bench.measure.figures import parse_slos
    from simserve.bench.plan import make_plan
    from simserve.bench.report.live import live
    from simserve.bench.run import run_bench

    slos_s = parse_slos(args.goodput)
    fail_on, metrics = _fail_on(args.fail_on), _metrics(args)
    metadata = pairs(args.metadata, "--metadata")
    saves = args.save_result or args.append_result or args.save_detailed
    options = bench_options(args, keep_texts=args.save_detailed or args.out is not None)
    if slos_s.get("ttft") is not None and not options.questions.stream:
        raise ConfigError("--goodput ttft needs answers token by token; leave --no-stream out")
    plan = make_plan(options)
    self_test = _self_test(args, plan) if args.self_test else None
    if args.self_test == "only":
        return OK
    _say(_introduction(plan))
    total = None if plan.shape.duration_s is not None and plan.shape.is_closed_loop else len(plan.requests)
    with live(sys.stderr, total, f"{plan.model} at {plan.server.address.url}", is_off=args.disable_tqdm) as on_progress:
        done = run_bench(plan, slos_s, on_progress, _say)
    _print(args, done, metrics, self_test)
    if saves or args.out is not None:
        _save(args, done, metrics, metadata, self_test, saves=saves)
    return _exit_code(done, fail_on, args.goodput_target)


def _self_test(args: argparse.Namespace, plan: Plan) -> SelfTest:
    from simserve.bench.report.live import live
    from simserve.bench.self_test.measure import measure_own_error

    with live(sys.stderr, None, "self-test", is_off=args.disable_tqdm) as on_progress:
        tested = measure_own_error(plan.shape, plan.processes, len(plan.requests), plan.schedule.rate, on_progress)
    print(tested.sentence(), file=sys.stdout if args.self_test == "only" else sys.stderr, flush=True)
    return tested


def _introduction(plan: Plan) -> str:
    """Whom, what and how long, before anything is sent."""
    shape, count = plan.shape, len(plan.requests)
    limit = "" if shape.max_concurrency is None else f", at most {shape.max_concurrency:,} at once"
    last_s = float(plan.schedule.due_s[-1])
    if shape.duration_s is not None:
        time = f", for {shape.duration_s:g} s"
    else:
        time = f", the last one after {last_s:,.1f} s" if last_s else ""
    tokens = sum(sample.input_tokens for sample in plan.samples) / len(plan.samples)
    answers = sum(sample.output_tokens for sample in plan.samples) / len(plan.samples)
    return (
        f"{count:,} requests of {tokens:,.0f} tokens for answers of {answers:,.0f} to {plan.model} at"
        f" {plan.server.address.url}{plan.path}{limit}{time}"
    )


def _print(args: argparse.Namespace, done: BenchRun, metrics: tuple[str, ...], self_test: SelfTest | None) -> None:
    percentiles = _percentiles(args)
    if args.report == "vllm":
        from simserve.bench.report.classic import classic_report
        from simserve.bench.report.lines import failure_sentences

        print(classic_report(done, metrics, percentiles), flush=True)
        for sentence in (*failure_sentences(done), *done.notes, str(done.verdict)):
            _say(sentence)
        return
    from rich.console import Console

    from simserve.bench.report.table import report

    console = Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS, highlight=False, soft_wrap=True)
    console.print(report(done, metrics, percentiles, args.lang, self_test))


def _save(
    args: argparse.Namespace,
    done: BenchRun,
    metrics: tuple[str, ...],
    metadata: dict[str, str],
    self_test: SelfTest | None,
    *,
    saves: bool,
) -> None:
    from simserve.bench.report.folder import write_folder
    from simserve.bench.report.result_json import result_name, result_object, write_result

    def result(*, detailed: bool) -> dict[str, Any]:
        return result_object(
            done, metrics, _percentiles(args), label=args.label, metadata=metadata, detailed=detailed,
            self_test=self_test,
        )  # fmt: skip

    written: list[Path] = []
    if saves:
        path = Path(args.result_dir or ".") / (args.result_filename or result_name(done, args.label))
        write_result(path, result(detailed=args.save_detailed), append=args.append_result)
        written.append(path)
    if args.out is not None:
        written += write_folder(
            args.out, done, result(detailed=True), metrics, _percentiles(args), args.lang, self_test
        )
    _say(f"wrote {', '.join(map(str, written))}")


def _exit_code(done: BenchRun, fail_on: tuple[str, ...], target: float) -> int:
    if done.load.was_interrupted:
        return INTERRUPTED
    if "never" in fail_on:
        return OK
    share = done.figures.slo_share
    missed = share is not None and share < target
    failed = (
        not done.figures.completed
        or ("slo" in fail_on and missed)
        or ("failures" in fail_on and done.figures.failed > 0)
        or ("verdict" in fail_on and done.verdict.word != "VALID")
    )
    return MISSED if failed else OK


def _metrics(args: argparse.Namespace) -> tuple[str, ...]:
    from simserve.bench.backends import find_backend
    from simserve.bench.report.metrics import DEFAULT_METRICS, ON_REQUEST, POOLING_METRICS

    if args.percentile_metrics is None:
        if find_backend(args.backend).is_pooling:
            return POOLING_METRICS
        return CLASSIC_METRICS if args.report == "vllm" else DEFAULT_METRICS
    asked = tuple(name.strip() for name in args.percentile_metrics.split(",") if name.strip())
    for name in asked:
        if name not in ON_REQUEST:
            raise ConfigError(f"--percentile-metrics knows no '{name}'; choose out of {', '.join(ON_REQUEST)}")
    return asked


def _percentiles(args: argparse.Namespace) -> tuple[float, ...]:
    if args.metric_percentiles is not None:
        return tuple(args.metric_percentiles)
    return CLASSIC_PERCENTILES if args.report == "vllm" else PERCENTILES


def _fail_on(text: str) -> tuple[str, ...]:
    found = tuple(word.strip() for word in text.split(","))
    for word in found:
        if word not in FAIL_ON:
            raise ConfigError(f"--fail-on knows no '{word}'; choose out of {', '.join(FAIL_ON)}")
    return found


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
