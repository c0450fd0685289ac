"""``simserve simulate``: serve a trace or a synthetic workload in simulated time, and report what clients would see."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TextIO

from simserve.cli.cluster import SimulatedCluster, add_cluster_arguments, cluster_spec, show, simulated_cluster
from simserve.cli.options import (
    add_engine_arguments,
    add_model_hardware_arguments,
    engine_options,
    model_and_hardware,
    number,
)
from simserve.cli.watching import add_watching_arguments, watching
from simserve.cli.workload import add_workload_arguments, offered_requests
from simserve.errors import WorkloadError

if TYPE_CHECKING:
    from simserve.metrics.bands import Bands
    from simserve.metrics.result import Result
    from simserve.metrics.summary import Summary
    from simserve.simulation import SimulationResult
    from simserve.simulation.cluster import ClusterResult
    from simserve.simulation.watching import Watcher

Progress = Callable[[int, int, float], None]
"""Called with (requests done, requests in all, simulated seconds)."""

PROGRESS_EVERY_S = 5.0

FULL_FRONT_END = 0.5
"""Share of the time from which on a front end makes requests wait noticeably."""

PIPE_COLUMNS = 160
"""Width where stdout is no terminal: enough for every line to stay whole."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``simserve simulate``."""
    add_model_hardware_arguments(parser)
    add_workload_arguments(parser)
    add_engine_arguments(parser)
    add_cluster_arguments(parser)
    _add_output_arguments(parser)


def _add_output_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="one JSON object, keyed as in vllm bench serve, not tables")
    group.add_argument("--out", type=Path, metavar="DIR", help="write the requests (CSV, Parquet) and the summary here")
    group.add_argument(
        "--metric-percentiles",
        type=percentile_list,
        metavar="P,P,...",
        default=(50.0, 90.0, 99.0),
        help="percentiles of each latency (50,90,99)",
    )
    group.add_argument(
        "--price-per-hour", type=price, metavar="USD", help="of one device, for the cost of the run (the profile's)"
    )
    add_watching_arguments(group)
    group.add_argument("--bill", action="store_true", help="energy and cost with the tables; --json always has them")
    group.add_argument(
        "--bands",
        action=argparse.BooleanOptionalAction,
        help="low and high of each figure, by serving the requests twice more, slower and faster (up to 5000 requests)",
    )


def percentile_list(text: str) -> tuple[float, ...]:
    """``50,90,99`` as numbers, for argparse."""
    percentiles = tuple(number(part) for part in text.split(","))
    for percent in percentiles:
        if not 0 <= percent <= 100:
            raise argparse.ArgumentTypeError(f"{percent:g} is not a percentile; give numbers from 0 to 100")
    return percentiles


def price(text: str) -> float:
    """USD per hour, for argparse."""
    usd = number(text)
    if not 0 < usd < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no price; give more than 0 USD per hour")
    return usd


class Simulated(NamedTuple):
    """A run that is done: its result, what that was computed from, and what its reader should know, in sentences."""

    result: Result
    summary: Summary
    bands: Bands
    done: SimulationResult
    warnings: list[str]

    @property
    def title(self) -> str:
        about = self.done.description
        return f"{about.model} on {about.hardware}: {about.workload}"


def run(args: argparse.Namespace) -> int:
    """Simulate, then print tables or JSON and write files as asked."""
    from simserve.metrics.files import make_folder, to_json, write_run

    if args.out:
        make_folder(args.out)  # now, not after a long run
    with watching(args) as watch:
        with progress(sys.stderr) as on_progress:
            run = simulated(args, on_progress, watch.watchers)
        watch.finish(run.done, run.title)
    for warning in run.warnings:
        print(warning, file=sys.stderr)
    if args.json:
        print(to_json(run.result), end="")
    elif isinstance(run, Simulated):
        _print_tables(run)
        if args.bill or args.price_per_hour is not None:
            _print_bill(run)
    else:
        show(run, None if sys.stdout.isatty() else PIPE_COLUMNS)
    if args.out:
        beside = run.done.columns if isinstance(run, Simulated) else run.beside
        paths = write_run(args.out, run.done.records, run.result, beside)
        print(f"wrote {', '.join(map(str, paths))}", file=sys.stderr)
    return 0


def simulated(
    args: argparse.Namespace, on_progress: Progress | None = None, watchers: Sequence[Watcher] = ()
) -> Simulated | SimulatedCluster:
    """Do what ``args`` ask for; prints nothing but what reading a trace has to say."""
    spec = cluster_spec(args)
    if spec is not None:
        return simulated_cluster(args, spec, on_progress, watchers)
    from simserve.metrics.result import result_object
    from simserve.metrics.summary import summarize
    from simserve.simulation import bands_wanted, simulate, simulate_edges

    options = engine_options(args)
    model, hardware = model_and_hardware(args)
    hardware = hardware.priced(args.price_per_hour)
    requests = offered_requests(args, options.block_size)
    done = simulate(requests.source, model, hardware, options, on_progress, watchers=watchers)
    edges: Sequence[SimulationResult] = ()
    if bands_wanted(args.bands, len(requests.source)):
        edges = simulate_edges(requests.source, model, hardware, options, on_progress)
    summary = summarize(done.records, done.totals, args.metric_percentiles)
    bands = bands_of(summary, edges, args.bands)
    warnings = rejections(summary, done.description.max_model_len)
    if not done.description.api_server_count:
        warnings += _full_front_end(summary)
    result = result_object(summary, done.description, bands) | done.figures | requests.labels
    return Simulated(result, summary, bands, done, warnings)


def rejections(summary: Summary, max_model_len: int) -> list[str]:
    """What to say of prompts that were too long; raises :class:`WorkloadError` if all were."""
    if not summary.rejected:
        return []
    longest = f"the longest sequence has {max_model_len:,} tokens"
    if summary.rejected == summary.completed + summary.failed:
        raise WorkloadError(f"all {summary.rejected:,} prompts are too long: {longest}; raise --max-model-len")
    return [f"{summary.rejected:,} requests were refused, their prompts are too long: {longest}"]


def bands_of(summary: Summary, edges: Sequence[SimulationResult | ClusterResult], asked: bool | None) -> Bands:
    """The band of each figure, from runs at both edges; says why there is none where there are no runs."""
    from simserve.metrics.bands import Bands, spread
    from simserve.metrics.result import predicted_figures
    from simserve.metrics.summary import summarize
    from simserve.simulation.bands import MADE, why_none

    if not edges:
        return Bands(why_none(asked))
    others = [summarize(edge.records, edge.totals, summary.percentiles) for edge in edges]
    return spread(map(predicted_figures, (summary, *others)), MADE)


def _full_front_end(summary: Summary) -> list[str]:
    """A prediction without a front end is too good where a real one has its hands full."""
    from simserve.latency.front_end import VLLM_V1

    work_s = VLLM_V1.work_s(summary.completed, summary.total_input_tokens, summary.total_output_tokens)
    duration_s = summary.totals.duration_s
    if work_s <= FULL_FRONT_END * duration_s:
        return []
    return [
        f"no front end was simulated, and vLLM's would have been busy {work_s / duration_s:.0%} of the time: "
        "add --front-end vllm-v1"
    ]


def _print_tables(run: Simulated) -> None:
    from rich.console import Console

    from simserve.metrics.tables import feature_table, report

    console = Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS)
    console.print(report(run.summary, run.done.description, run.bands))
    if run.done.figures:
        console.print(feature_table(run.done.figures))


def _print_bill(run: Simulated) -> None:
    from simserve.metrics.bill import bill_keys, bill_lines, bill_of
    from simserve.metrics.result import tokens_of

    summary, description = run.summary, run.done.description
    bill = bill_of(summary.totals, description, summary.totals.duration_s)
    for label, value in bill_lines(bill_keys(bill, summary.completed, tokens_of(summary)), [description]):
        print(f"{label:<12}  {value}")


@contextmanager
def progress(stream: TextIO) -> Iterator[Progress]:
    """A bar where ``stream`` is a terminal, else a plain line now and then."""
    if not stream.isatty():
        yield progress_lines(stream)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("requests, {task.fields[clock_s]:,.1f} simulated seconds"))
    with Bar(*columns, TimeElapsedColumn(), console=Console(file=stream), transient=True) as bar:
        task = bar.add_task("simulate", total=None, clock_s=0.0)
        yield lambda done, total, clock_s: bar.update(task, completed=done, total=total, clock_s=clock_s)


def progress_lines(stream: TextIO, clock: Callable[[], float] = time.monotonic) -> Progress:
    """Write to ``stream`` how far the run is, every five seconds by ``clock``."""
    next_s = clock() + PROGRESS_EVERY_S

    def on_progress(done: int, total: int, clock_s: float) -> None:
        nonlocal next_s
        if clock() >= next_s:
            next_s = clock() + PROGRESS_EVERY_S
            print(f"{done:,} of {total:,} requests done, {clock_s:,.1f} simulated seconds", file=stream, flush=True)

    return on_progress
