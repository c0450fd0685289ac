"""``simserve validate``: predictions beside what was measured.

``serving RUN`` sends the same requests through the simulation that a real server was measured with; ``operators DIR``
fits efficiency curves to half of the published operator tables and asks them for the other half; ``engine``, in
``validate_engine``, runs the torch engine on this machine and holds the simulation against it step by step.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simserve.cli import validate_engine
from simserve.cli.options import (
    add_engine_arguments,
    add_model_hardware_arguments,
    engine_options,
    model_and_hardware,
    number,
    whole_number,
)
from simserve.errors import ConfigError

if TYPE_CHECKING:
    from simserve.calibration.compare import Compared, Comparison
    from simserve.calibration.holdout import OperatorError
    from simserve.config import EngineOptions

OF_AN_ENGINE = (
    "engine_preset", "async_scheduling", "enable_chunked_prefill", "long_prefill_token_threshold",
    "reserve_full_prompt", "chunked_prefill_size", "schedule_policy", "schedule_conservativeness",
)  # fmt: skip
TOO_FAR_OFF = 1
"""Exit code where a figure misses by more than ``--max-error``."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``simserve validate``."""
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True)
    serving = kinds.add_parser(
        "serving", help="a whole run of a real server", formatter_class=parser.formatter_class, allow_abbrev=False
    )
    serving.add_argument("run", type=Path, metavar="RUN", help="a measured run: its file, or the folder that holds it")
    serving.add_argument("--line", type=whole_number, metavar="N", help="which run of a table with one in each line")
    serving.add_argument(
        "--repeats", type=whole_number, metavar="N", default=1,
        help="the run's figures are means over N, of the same prompts, at a server that kept its prefix cache (1)",
    )  # fmt: skip
    serving.add_argument("--own-blocks", action="store_true", help="estimate the KV blocks even if the run states them")
    serving.add_argument("--max-error", type=number, metavar="PERCENT", help="fail if a figure misses by more")
    serving.add_argument("--json", action="store_true", help="one JSON object, not a table")
    serving.add_argument("--plot", type=Path, metavar="FILE", help="draw both distributions (.png, .svg or .pdf)")
    add_model_hardware_arguments(serving)
    add_engine_arguments(serving)
    operators = kinds.add_parser(
        "operators",
        help="operators that efficiency curves were not fitted to",
        formatter_class=parser.formatter_class,
        allow_abbrev=False,
    )
    operators.add_argument("folder", type=Path, metavar="DIR", help="operator tables, one folder per device")
    operators.add_argument("--hardware", metavar="NAME", help="only this device (all that have tables)")
    operators.add_argument(
        "--seeds", type=whole_number, metavar="N", default=1, help="hold out N times, others each time (1)"
    )
    operators.add_argument("--json", action="store_true", help="one JSON object, not a table")
    validate_engine.add_arguments(
        kinds.add_parser(
            "engine",
            help="the torch engine on this machine, step by step",
            formatter_class=parser.formatter_class,
            allow_abbrev=False,
        )
    )


def run(args: argparse.Namespace) -> int:
    """Compare and print; exit code 1 if a figure of a run is further off than ``--max-error``."""
    return {"operators": _operators, "serving": _serving, "engine": validate_engine.run}[args.kind](args)


def _operators(args: argparse.Namespace) -> int:
    from simserve.calibration.holdout import SEED, holdout_errors
    from simserve.calibration.shipped import TABLES
    from simserve.hardware import load_hardware

    names = list(TABLES) if args.hardware is None else [load_hardware(args.hardware).name]
    if names[0] not in TABLES:
        raise ConfigError(f"no operator of {names[0]} was measured; choose one of {', '.join(TABLES)}")
    if not args.folder.is_dir():
        raise ConfigError(f"{args.folder} is not a folder; give the one that holds the tables, one folder per device")
    if args.seeds < 1:
        raise ConfigError(f"--seeds must be at least 1, not {args.seeds}")
    found: list[list[OperatorError]] = []
    for name in names:
        print(f"holding out measurements of {name}", file=sys.stderr, flush=True)
        by_seed = [holdout_errors(args.folder, name, SEED + more) for more in range(args.seeds)]
        found += map(list, zip(*by_seed, strict=True))
    if args.json:
        rows = [
            {"hardware": each.hardware, "operator": each.operator, "seed": SEED + more, **each.held_out.model_dump()}
            for same in found
            for more, each in enumerate(same)
        ]
        print(json.dumps({"operators": rows}, indent=2))
    else:
        _print_errors(found)
    return 0


def _print_errors(found: list[list[OperatorError]]) -> None:
    """A row for each operator; a range where there are several seeds."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Absolute error on held-out measurements", title_justify="left")
    for name in ("hardware", "operator", "held out"):
        table.add_column(name)
    for name in ("measurements", "median", "p95", "p90 of sums"):
        table.add_column(name, justify="right")
    for same in found:
        held = [each.held_out for each in same]
        errors = ([h.median for h in held], [h.p95 for h in held], [h.summed_p90 or 0.0 for h in held])
        figures = (f"{held[0].points:,}", *map(_range, errors))
        table.add_row(same[0].hardware, same[0].operator, held[0].of, *figures)
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def _range(values: list[float]) -> str:
    low, high = f"{min(values):.1%}", f"{max(values):.1%}"
    return low if low == high else f"{low[:-1]}–{high}"


def _serving(args: argparse.Namespace) -> int:
    from simserve.calibration.compare import compare
    from simserve.calibration.measured_run import read_measured_run

    if args.repeats < 1:
        raise ConfigError(f"--repeats must be at least 1, not {args.repeats}")
    measured = read_measured_run(args.run, args.line)
    args.model = args.model or measured.settings.get("model")
    args.hardware = args.hardware or measured.settings.get("hardware")
    options = _with_settings(engine_options(args), measured.settings, own_blocks=args.own_blocks)
    model, hardware = model_and_hardware(args)
    comparison = compare(measured, model, hardware, options, args.repeats)
    if args.json:
        print(json.dumps(_as_object(comparison), indent=2))
    else:
        _print_table(comparison)
    if args.plot:
        _plot(comparison, args.plot)
    limit = args.max_error
    return TOO_FAR_OFF if limit is not None and abs(comparison.worst.error) * 100 > limit else 0


def _with_settings(options: EngineOptions, settings: dict[str, Any], *, own_blocks: bool) -> EngineOptions:
    """What the run says of its engine, wherever the command line says nothing."""
    plain = type(options)()
    unset = {
        name: value
        for name, value in settings.items()
        if hasattr(options, name) and getattr(options, name) == getattr(plain, name)
    }
    if options.policy or options.engine_preset:  # another engine than the run's has its own ways
        unset = {name: value for name, value in unset.items() if name not in OF_AN_ENGINE}
    if own_blocks:
        if options.num_gpu_blocks is not None:
            raise ConfigError("--own-blocks and --num-gpu-blocks exclude each other; give one of them")
        unset.pop("num_gpu_blocks", None)
    return replace(options, **unset)


def _as_object(comparison: Comparison) -> dict[str, Any]:
    from simserve.simulation.bands import MADE

    description = comparison.result.description
    return {
        "run": comparison.run.name,
        "model": description.model,
        "hardware_profile": description.hardware_profile,
        "calibrated": description.calibrated,
        "uncertainty": description.uncertainty,
        "policy": description.policy,
        "kv_blocks": description.kv_blocks,
        "preemptions": comparison.result.totals.preemptions,
        "bands": MADE,
        "figures": [
            {
                "metric": figure.metric,
                "statistic": figure.statistic,
                "measured": figure.measured,
                "predicted": figure.predicted,
                "error": figure.error,
                "low": figure.band.low,
                "high": figure.band.high,
                "in_band": figure.in_band,
            }
            for figure in comparison.figures
        ],
    }


def _print_table(comparison: Comparison) -> None:
    from rich.console import Console
    from rich.table import Table

    from simserve.simulation.bands import MADE

    description, figures = comparison.result.description, comparison.figures
    table = Table(title=f"{comparison.run.name}: {description.model} on {description.hardware}", title_justify="left")
    table.add_column("metric")
    for name in ("measured", "predicted", "error", "low", "high", "in band"):
        table.add_column(name, justify="right")
    for figure in figures:
        table.add_row(*_cells(figure))
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    within = sum(figure.in_band for figure in figures)
    calibrated = "calibrated" if description.calibrated else "uncalibrated"
    console.print(f"{within} of {len(figures)} measured figures lie between low and high: {MADE}")
    console.print(f"profile {description.hardware_profile}, {calibrated}: {description.uncertainty}")
    console.print(f"{description.kv_blocks:,} KV blocks, {comparison.result.totals.preemptions:,} preemptions")


def _cells(figure: Compared) -> tuple[str, ...]:
    is_latency = figure.statistic != "total"
    name = f"{figure.metric} {figure.statistic}, ms" if is_latency else figure.metric
    scale = 1e3 if is_latency else 1.0
    measured, predicted, low, high = (
        f"{value * scale:,.2f}" for value in (figure.measured, figure.predicted, figure.band.low, figure.band.high)
    )
    return name, measured, predicted, f"{figure.error:+.1%}", low, high, "yes" if figure.in_band else "no"


def _plot(comparison: Comparison, path: Path) -> None:
    try:
        import matplotlib
    except ImportError:
        raise ConfigError("--plot needs matplotlib; install it with: pip install 'simserve[plot]'") from None
    matplotlib.use("Agg")
    from simserve.calibration.distributions import draw_distributions

    draw_distributions(comparison, path)
