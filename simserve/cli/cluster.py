"""``simserve simulate`` on a cluster: its options, the run, and what is printed of it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from simserve.cli.options import engine_options, model_and_hardware, named_model_and_hardware, whole_number
from simserve.cli.workload import offered_requests
from simserve.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from simserve.cli.simulate import Progress
    from simserve.metrics.bands import Bands
    from simserve.metrics.summary import Summary
    from simserve.simulation.cluster import ClusterResult, ClusterSpec
    from simserve.simulation.cluster.spec import GroupSpec
    from simserve.simulation.watching import Watcher

MOST_ROWS = 20
"""Replicas that a terminal shows one by one; the others are in --json and --out."""

GROUP_COLUMNS = (
    "replicas", "hardware", "model", "kv_blocks", "finished", "output_tokens", "busy_fraction", "energy_wh", "cost_usd",
)  # fmt: skip

TIMES = {"ms": 1e-3, "us": 1e-6, "s": 1.0}


def add_cluster_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options; read them with :func:`cluster_spec`."""
    group = parser.add_argument_group("cluster", "More than one replica; see docs/clusters.md.")
    group.add_argument("--cluster", type=Path, metavar="FILE", help="a cluster file: groups, router, failures, ...")
    group.add_argument("--replicas", type=whole_number, metavar="N", help="as many equal replicas")
    group.add_argument(
        "--data-parallel-size",
        "-dp",
        type=whole_number,
        metavar="N",
        help="ranks of each replica, with a scheduler and KV cache each; those of a mixture of experts share these (1)",
    )
    group.add_argument(
        "--enable-expert-parallel", action="store_true", help="whole experts on each device, not a part of each"
    )
    group.add_argument(
        "--router",
        metavar="NAME|FILE.py:CLASS",
        help="round-robin, random, least-requests, least-tokens, power-of-two, prefix-aware, session-affinity,"
        " weighted, mix, or a class of your own (the file's, else round-robin)",
    )
    group.add_argument(
        "--router-staleness", type=duration_s, metavar="TIME", help="how old loads are that it sees, as 50ms (0)"
    )


def duration_s(text: str) -> float:
    """``50ms``, ``0.05s`` or ``0.05`` as seconds, for argparse."""
    unit = next((unit for unit in TIMES if text.endswith(unit)), "")
    try:
        seconds = float(text.removesuffix(unit)) * TIMES.get(unit, 1.0)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is no time; write it as 50ms or 0.05s")
    return seconds


def cluster_spec(args: argparse.Namespace) -> ClusterSpec | None:
    """The cluster that ``args`` ask for; None for a single engine. Raises :class:`ConfigError`."""
    own = {"policy": args.router, "staleness_s": args.router_staleness}
    own = {key: value for key, value in own.items() if value is not None}
    ranks: dict[str, int | bool] = {}
    if args.data_parallel_size not in (None, 1):
        ranks["data_parallel_size"] = args.data_parallel_size
    if args.enable_expert_parallel:
        ranks["enable_expert_parallel"] = True
    if args.data_parallel_size is not None and args.data_parallel_size < 1:
        raise ConfigError(f"--data-parallel-size must be at least 1, not {args.data_parallel_size}")
    if args.cluster is None and args.replicas is None and not own and not ranks:
        return None
    from simserve.simulation.cluster import cluster_of, read_cluster

    if args.cluster is None:
        count = 1 if args.replicas is None else args.replicas
        if count < 1:
            raise ConfigError(f"--replicas must be at least 1, not {count}")
        if "data_parallel_size" in ranks:
            own.setdefault("policy", "least-requests")
        return cluster_of({"groups": [{"name": "all", "replicas": count, **ranks}], "router": own}, "command line")
    if ranks:
        flag = next(iter(ranks)).replace("_", "-")
        raise ConfigError(f"--{flag} and --cluster contradict: each group of the file says it; give one of them")
    if args.replicas is not None:
        raise ConfigError("--replicas and --cluster contradict: the file says how many there are; give one of them")
    spec = read_cluster(args.cluster)
    return spec.model_copy(update={"router": spec.router.model_copy(update=own)})


class SimulatedCluster(NamedTuple):
    """As :class:`simserve.cli.simulate.Simulated`, of a cluster; ``beside`` are more columns of its requests."""

    result: Mapping[str, Any]
    summary: Summary
    bands: Bands
    done: ClusterResult
    warnings: list[str]
    beside: Mapping[str, Any]

    @property
    def title(self) -> str:
        return f"{len(self.done.members)} replicas, router {self.done.router}: {self.done.descriptions[0].workload}"


def simulated_cluster(
    args: argparse.Namespace, spec: ClusterSpec, on_progress: Progress | None, watchers: Sequence[Watcher] = ()
) -> SimulatedCluster:
    """Do what ``args`` ask for on the cluster ``spec``."""
    import numpy as np

    from simserve.cli.simulate import bands_of, rejections
    from simserve.metrics.summary import summarize
    from simserve.simulation import bands_wanted
    from simserve.simulation.cluster import Defaults, simulate_cluster
    from simserve.simulation.cluster.report import cluster_object

    options = engine_options(args)
    model, hardware = model_and_hardware(args) if args.cluster is None else named_model_and_hardware(args)
    if args.price_per_hour is not None:
        hardware = hardware and hardware.priced(args.price_per_hour)
        spec = spec.model_copy(update={"groups": tuple(_priced(group, args.price_per_hour) for group in spec.groups)})
    defaults = Defaults(model, hardware, options)
    requests = offered_requests(args, options.block_size)
    done = simulate_cluster(requests.source, spec, defaults, on_progress, watchers=watchers)
    edges: Sequence[ClusterResult] = ()
    if bands_wanted(args.bands, len(requests.source)):
        edges = [simulate_cluster(requests.source, spec, defaults, on_progress, edge) for edge in (-1, 1)]
    summary = summarize(done.records, done.totals, args.metric_percentiles)
    bands = bands_of(summary, edges, args.bands)
    warnings = rejections(summary, max(each.max_model_len for each in done.descriptions))
    result = {**cluster_object(done, summary, bands), **requests.labels}
    names = np.array([member.name for member in done.members] + [None])
    return SimulatedCluster(
        result, summary, bands, done, warnings, {"replica": names[done.places.member], **done.columns}
    )


def _priced(group: GroupSpec, usd_per_hour: float) -> GroupSpec:
    """At the price of the command line, unless the file has one."""
    return group if group.usd_per_device_hour else group.model_copy(update={"usd_per_device_hour": usd_per_hour})


def show(run: SimulatedCluster, width: int | None) -> None:
    """Print latencies, groups, replicas and tenants as tables."""
    from rich.console import Console, Group

    from simserve.metrics.bill import bill_lines
    from simserve.metrics.latency import DEFINITIONS
    from simserve.metrics.tables import feature_table, latency_table, load_lines
    from simserve.simulation.cluster.report import group_rows, tenant_rows, total_bill

    result, summary, bands = run.done, run.summary, run.bands
    devices = sum(member.devices for member in result.members)
    trust = {
        f"profile {each.hardware_profile}, {'calibrated' if each.calibrated else 'uncalibrated'}: {each.uncertainty}"
        for each in result.descriptions
    }
    groups = group_rows(result)
    parts: list[RenderableType] = [
        f"{sum(row['replicas'] for row in groups)} replicas on {devices} devices, router {result.router}: "
        f"{result.descriptions[0].workload}",
        latency_table(summary, bands),
        *(f"{label:<12} {value}" for label, value in load_lines(summary, bands)),
        *(f"{label:<12} {value}" for label, value in bill_lines(total_bill(result, summary), result.descriptions)),
        f"{'retries':<12} {int(result.places.retries.sum()):,}",
        f"{'prefix cache':<12} {summary.prefix_cache_hit_rate:.1%} of {summary.totals.prompt_tokens:,} prompt tokens",
        "",
        _table("group", groups, GROUP_COLUMNS),
        _replica_table(result),
    ]
    if result.figures:
        parts.append(feature_table(result.figures))
    if result.tenants:
        columns = ("requests", "finished", "output_tokens", "mean_ttft_ms", "p99_ttft_ms", "good_fraction")
        parts.append(_table("tenant", tenant_rows(result), columns))
    parts += [*sorted(trust), f"low–high: {bands.basis}"]
    parts += [f"[dim]{name} = {definition}[/dim]" for name, definition in DEFINITIONS.items()]
    Console(width=width).print(Group(*parts))


def _replica_table(result: ClusterResult) -> RenderableType:
    from simserve.simulation.cluster.report import replica_row

    rows = [replica_row(member) for member in result.members[:MOST_ROWS]]
    columns = (
        "finished", "input_tokens", "output_tokens", "steps", "busy_fraction", "peak_kv_blocks", "failures",
        "energy_wh", "joules_per_output_token", "cost_usd",
    )  # fmt: skip
    table = _table("replica", rows, columns)
    if len(result.members) > MOST_ROWS:
        table.caption = f"and {len(result.members) - MOST_ROWS:,} more: all of them are in --json"
    return table


def _table(what: str, rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(what, no_wrap=True)
    for column in columns:
        table.add_column(_words(column), justify="left" if column in ("hardware", "model") else "right")
    for row in rows:
        table.add_row(row["name"], *(_cell(column, row[column]) for column in columns))
    return table


def _words(column: str) -> str:
    text = column.removesuffix("_fraction").replace("_", " ")
    return f"{text.removesuffix(' ms')}, ms" if text.endswith(" ms") else text


def _cell(column: str, value: object) -> str:
    if value is None:
        return "-"
    if column.endswith("_fraction"):
        return f"{value:.1%}"
    return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
