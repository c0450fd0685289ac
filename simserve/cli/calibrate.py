"""``simserve calibrate``: measure the machine it runs on and write its hardware profile."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from simserve.cli.options import whole_number
from simserve.cli.progress import shown_progress
from simserve.errors import ConfigError

if TYPE_CHECKING:
    from simserve.hardware import HardwareProfile

DTYPES = ("float32", "bfloat16", "float16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``simserve calibrate``."""
    parser.add_argument("--out", type=Path, required=True, metavar="NAME.yaml", help="the profile to write (required)")
    parser.add_argument(
        "--model",
        nargs="+",
        metavar="NAME",
        help="models whose whole steps to measure, each a name or a folder with a config.json "
        "(simserve/small-llama on cpu, meta-llama/Llama-3.2-1B-Instruct on cuda)",
    )
    add_measuring_arguments(parser)


def add_measuring_arguments(parser: argparse.ArgumentParser) -> None:
    """On what and how thoroughly to measure: shared with ``simserve validate engine``."""
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="what to measure (cpu)")
    parser.add_argument("--dtype", choices=DTYPES, help="of weights and KV cache (float32 on cpu, bfloat16 on cuda)")
    parser.add_argument("--threads", type=whole_number, metavar="N", help="torch's threads on the host (all cores)")
    parser.add_argument(
        "--quick", action="store_true", help="few points and repeats: to try it out; the profile says so"
    )
    parser.add_argument(
        "--allow-noise", action="store_true", help="write the profile even if the machine was busy; it says so"
    )


def run(args: argparse.Namespace) -> int:
    """Measure and write; raises a :class:`SimServeError` if the machine was too noisy to believe it."""
    from simserve.calibration.import_profile import write_profile

    if args.out.suffix.lower() not in (".yaml", ".yml"):
        raise ConfigError(f"--out {args.out} must end in .yaml, as profiles do")
    if not args.out.absolute().parent.is_dir():
        raise ConfigError(f"the folder of --out {args.out} does not exist; create it first")
    profile = _measured_profile(args)
    write_profile(profile, args.out)
    _print(profile, args.out)
    return 0


def dtype_of(args: argparse.Namespace) -> str:
    """The number format to measure in."""
    default = "float32" if args.device == "cpu" else "bfloat16"
    return str(args.dtype or default)


def _measured_profile(args: argparse.Namespace) -> HardwareProfile:
    """Calibrate as ``args`` say, showing how far it is on stderr."""
    from simserve.calibration.microbench.calibrate import calibrate, default_models
    from simserve.calibration.microbench.machine import this_machine
    from simserve.models import load_model

    models = [load_model(model) for model in args.model or default_models(args.device)]
    machine = this_machine(args.device, dtype_of(args), args.threads)
    with shown_progress(sys.stderr) as report:
        return calibrate(args.out.stem, machine, models, quick=args.quick, allow_noise=args.allow_noise, report=report)


def _print(profile: HardwareProfile, out: Path) -> None:
    calibration = profile.calibration
    assert calibration is not None
    conditions = calibration.conditions
    assert conditions is not None
    peak = profile.peak_flops_for(conditions.dtype)
    print(f"{out}: {conditions.device}, {conditions.threads} threads, {conditions.dtype}")
    print(
        f"measured in {conditions.duration_s:.0f} s: {peak / 1e9:,.0f} GFLOP/s, "
        f"{profile.bandwidth_bytes_per_s / 1e9:,.1f} GB/s"
    )
    print(
        f"noise {conditions.noise:.1%}, drift {conditions.drift:+.1%}, without a quiet moment {conditions.unquiet:.0%}"
    )
    for anchors in calibration.step_anchors:
        for held in anchors.held_out:
            of = "steps between those measured" if held.of == "steps" else "steps predicted from the other models"
            print(f"{anchors.model}, {of}: off by {held.median:.1%} (median), {held.p95:.1%} (p95) of {held.points}")
    print(f"use it with --hardware {out}")
