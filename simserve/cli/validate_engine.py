"""``simserve validate engine``: the simulation held against the torch engine on this machine, step by step."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simserve.cli.calibrate import add_measuring_arguments, dtype_of
from simserve.cli.options import number, whole_number
from simserve.cli.progress import shown_progress
from simserve.errors import ConfigError

if TYPE_CHECKING:
    from simserve.calibration.engine_check.compare import EngineCheck
    from simserve.hardware import HardwareProfile

INPUT_LEN, OUTPUT_LEN = "uniform:16:600", "uniform:8:96"
TOO_FAR_OFF = 1
"""Exit code where the simulation makes other steps, or a figure misses by more than ``--max-error``."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``simserve validate engine``."""
    parser.add_argument("--hardware", metavar="FILE", help="a profile of this machine (one that is measured first)")
    parser.add_argument("--model", metavar="NAME", help="what runs, with random weights (what was calibrated)")
    parser.add_argument(
        "--calibrate-on", nargs="+", metavar="NAME", help="models to calibrate with, without --hardware (--model)"
    )
    add_measuring_arguments(parser)
    _add_workload_arguments(parser)
    parser.add_argument("--repeats", type=whole_number, default=5, metavar="N", help="runs of the engine (5)")
    parser.add_argument("--max-error", type=number, metavar="PERCENT", help="fail if a figure misses by more")
    parser.add_argument("--json", action="store_true", help="one JSON object, not tables")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw steps and latencies (.png, .svg or .pdf)")


def _add_workload_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("workload and engine")
    group.add_argument("--num-prompts", type=whole_number, default=64, metavar="N", help="requests (64)")
    group.add_argument(
        "--request-rate", type=number, metavar="X", help="per second (70%% of what the engine should manage)"
    )
    group.add_argument("--input-len", default=INPUT_LEN, metavar="LEN", help=f"tokens of a prompt ({INPUT_LEN})")
    group.add_argument("--output-len", default=OUTPUT_LEN, metavar="LEN", help=f"tokens of an answer ({OUTPUT_LEN})")
    group.add_argument("--seed", type=whole_number, default=0, metavar="N", help="of the workload (0)")
    group.add_argument("--max-num-seqs", type=whole_number, default=16, metavar="N", help="most requests a step (16)")
    group.add_argument(
        "--max-num-batched-tokens", type=whole_number, default=512, metavar="N", help="most tokens in a step (512)"
    )
    group.add_argument("--num-gpu-blocks", type=whole_number, metavar="N", help="KV blocks (enough for all)")


def run(args: argparse.Namespace) -> int:
    """Run, compare and print; exit code 1 if the steps differ or a figure is further off than ``--max-error``."""
    from simserve.calibration.engine_check.run import (
        GivenProfile,
        MeasuredMeanwhile,
        ProfileSource,
        Wish,
        check_engine,
    )
    from simserve.calibration.microbench.calibrate import CalibrationSession
    from simserve.calibration.microbench.machine import this_machine
    from simserve.config import EngineOptions
    from simserve.models import load_model
    from simserve.workload import parse_length

    if args.repeats < 1:
        raise ConfigError(f"--repeats must be at least 1, not {args.repeats}")
    wish = Wish(
        args.num_prompts,
        args.request_rate,
        parse_length(args.input_len, "--input-len"),
        parse_length(args.output_len, "--output-len"),
        args.seed,
    )
    options = EngineOptions(
        max_num_seqs=args.max_num_seqs,
        max_num_batched_tokens=args.max_num_batched_tokens,
        num_gpu_blocks=args.num_gpu_blocks,
    )
    hardware = _given_hardware(args)
    models = _models(args, hardware)
    machine = this_machine(args.device, dtype_of(args), args.threads)
    with shown_progress(sys.stderr) as report:
        shared = {"allow_noise": args.allow_noise, "report": report}
        source: ProfileSource
        if hardware is None:
            calibrated_on = [load_model(name) for name in args.calibrate_on or models]
            session = CalibrationSession("this-machine", machine, calibrated_on, quick=args.quick, **shared)
            source = MeasuredMeanwhile(session)
        else:
            source = GivenProfile(hardware)
        check = check_engine(machine, load_model(models[0]), source, options, wish, args.repeats, **shared)
    if args.json:
        print(json.dumps(_as_object(check), indent=2))
    else:
        _print_tables(check)
    if args.plot:
        _plot(check, args.plot)
    too_far_off = args.max_error is not None and check.worst * 100 > args.max_error
    return TOO_FAR_OFF if check.difference or too_far_off else 0


def _given_hardware(args: argparse.Namespace) -> HardwareProfile | None:
    """The profile that is given, whose threads and number format then hold too; None if it is to be measured."""
    from simserve.hardware import load_hardware

    if args.hardware is None:
        return None
    if args.calibrate_on:
        raise ConfigError("--calibrate-on and --hardware exclude each other; give one of them")
    hardware = load_hardware(args.hardware)
    conditions = hardware.calibration.conditions if hardware.calibration else None
    if conditions:
        args.dtype = args.dtype or conditions.dtype
        args.threads = args.threads or conditions.threads
    return hardware


def _models(args: argparse.Namespace, hardware: HardwareProfile | None) -> list[str]:
    """What runs: the model that is asked for, else the one that was calibrated, or will be."""
    from simserve.calibration.microbench.calibrate import default_models

    if args.model:
        return [args.model]
    if hardware is None:
        return list(args.calibrate_on or default_models(args.device))
    anchors = hardware.calibration.step_anchors if hardware.calibration else ()
    if not anchors:
        raise ConfigError(f"which model? {hardware.name} was calibrated with none; name one with --model")
    return [anchors[0].model]


def _as_object(check: EngineCheck) -> dict[str, Any]:
    setup = check.setup
    return {
        "model": setup.model.name,
        "hardware_profile": setup.hardware.name,
        "uncertainty": setup.uncertainty,
        "workload": check.workload.name,
        "runs": len(check.runs),
        "disturbed_runs": len(check.disturbed),
        "preemptions": int(check.predicted.preemptions.sum()),
        "same_steps": check.difference is None,
        "difference": check.difference,
        "steps": [asdict(step) for step in check.steps],
        "latencies": [asdict(latency) | {"error": latency.error} for latency in check.latencies],
    }


def _print_tables(check: EngineCheck) -> None:
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    setup = check.setup
    console.print(f"{setup.model.name} on {setup.hardware.name}: {setup.uncertainty}")
    console.print(f"{check.workload.name}, {len(check.runs)} runs of the torch engine", end="")
    console.print(f", {len(check.disturbed)} of them disturbed" if check.disturbed else "")
    console.print(_step_table(check))
    console.print(_latency_table(check))
    same = "the simulation, given the engine's step times, made the same steps with the same requests in each"
    console.print(same if check.difference is None else f"the simulation makes other steps: {check.difference}")


def _step_table(check: EngineCheck) -> Any:
    from rich.table import Table

    table = Table(title="Steps: predicted against measured", title_justify="left")
    table.add_column("kind")
    for name in ("steps", "measured median, ms", "error median", "error p95", "bias of the sum"):
        table.add_column(name, justify="right")
    for step in check.steps:
        figures = (f"{step.median:.1%}", f"{step.p95:.1%}", f"{step.bias:+.1%}")
        table.add_row(step.kind, f"{step.steps:,}", f"{step.measured_s * 1e3:,.2f}", *figures)
    return table


def _latency_table(check: EngineCheck) -> Any:
    from rich.table import Table

    title = "Latencies: means of the simulation against medians of the runs' means"
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for name in ("measured, ms", "runs apart", "predicted, ms", "error", "a request's error, median"):
        table.add_column(name, justify="right")
    for latency in check.latencies:
        measured, predicted = f"{latency.measured_s * 1e3:,.2f}", f"{latency.predicted_s * 1e3:,.2f}"
        error, each = f"{latency.error:+.1%}", f"{latency.request_median:.1%}"
        table.add_row(latency.metric, measured, f"{latency.spread:.1%}", predicted, error, each)
    return table


def _plot(check: EngineCheck, path: Path) -> None:
    try:
        import matplotlib
    except ImportError:
        raise ConfigError("--plot needs matplotlib; install it with: pip install 'simserve[plot]'") from None
    matplotlib.use("Agg")
    from simserve.calibration.engine_check.draw import draw_check

    draw_check(check, path)
