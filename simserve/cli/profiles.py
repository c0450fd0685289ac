"""``simserve profiles``: the hardware that SimServe knows, what stands behind its figures, and how to add your own."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simserve.cli.options import GB
from simserve.errors import ConfigError

if TYPE_CHECKING:
    from simserve.hardware import Curves, HardwareProfile, HeldOut, StepAnchors

FORMATS = ("aiconfigurator", "llmservingsim", "vidur", "csv")
"""Those of simserve.calibration.tables, which is slow to import."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``simserve profiles``."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def action(name: str, purpose: str) -> argparse.ArgumentParser:
        return actions.add_parser(name, help=purpose, formatter_class=parser.formatter_class, allow_abbrev=False)

    listing = action("list", "every profile that is shipped, in a line")
    show = action("show", "one profile, with the source and held-out error of each calibrated operator")
    plot = action("plot", "draw the roofline of a profile and what its curves reach")
    for each in (show, plot):
        each.add_argument("name", metavar="NAME", help="a profile that SimServe ships, or a .yaml file")
    for each in (listing, show):
        each.add_argument("--json", action="store_true", help="JSON, not a table")
    plot.add_argument("--out", type=Path, required=True, metavar="FILE", help="a .svg, .png or .pdf (required)")
    _add_import_arguments(action("import", "fit efficiency curves to tables of measured operators"))


def _add_import_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", type=Path, nargs="+", metavar="PATH", help="tables, all in the same format")
    parser.add_argument("--format", choices=FORMATS, required=True, help="who wrote the tables (required)")
    parser.add_argument(
        "--hardware", required=True, metavar="BASE", help="the device's profile; operators not measured stay (required)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="NAME.yaml", help="the new profile (required)")
    parser.add_argument("--source", metavar="TEXT", help="where the tables come from (their names)")
    parser.add_argument("--licence", metavar="TEXT", default="not stated", help="of the tables (not stated)")
    parser.add_argument(
        "--measured-with", metavar="TEXT", default="not stated", help="engine and its version (not stated)"
    )


def run(args: argparse.Namespace) -> int:
    """Do what was asked for; what is drawn or written is named on stdout."""
    {"list": _list, "show": _show, "plot": _plot, "import": _import}[args.action](args)
    return 0


def _list(args: argparse.Namespace) -> None:
    from simserve.hardware import list_hardware, load_hardware

    profiles = [load_hardware(name) for name in list_hardware()]
    if args.json:
        print(json.dumps([_summary(profile) for profile in profiles], indent=2))
        return
    rows = []
    for profile in profiles:
        peak, price = profile.peak_flops.get("bfloat16"), profile.price
        rows.append(
            (
                profile.name,
                profile.kind,
                f"{profile.memory_bytes / GB:,.0f}",
                f"{profile.bandwidth_bytes_per_s / 1e9:,.0f}",
                f"{peak / 1e12:,.0f}" if peak else "-",
                _basis(profile),
                f"±{_uncertainty(profile):.0%}",
                f"{price.usd_per_hour:.2f}" if price else "-",
            )
        )
    header = ("name", "kind", "memory, GB", "GB/s", "bf16 TFLOP/s", "step times", "uncertainty", "USD/h")
    _print_table(header, rows, left=("name", "kind", "step times"))


def _summary(profile: HardwareProfile) -> dict[str, Any]:
    return {
        "name": profile.name,
        "kind": profile.kind,
        "memory_bytes": profile.memory_bytes,
        "bandwidth_bytes_per_s": profile.bandwidth_bytes_per_s,
        "bfloat16_flops_per_s": profile.peak_flops.get("bfloat16"),
        "step_times": _basis(profile),
        "uncertainty": _uncertainty(profile),
        "usd_per_hour": profile.price.usd_per_hour if profile.price else None,
    }


def _basis(profile: HardwareProfile) -> str:
    """What predictions rest on: measured curves, those of another device, some of both, or the data sheet."""
    from simserve.hardware.uncertainty import OPERATORS, curves_in_use

    if not profile.calibrated:
        return "data sheet"
    large = [curves_in_use(profile, operator) for operator in OPERATORS]
    derived = [getattr(curves, "derived", None) is not None for curves in large if curves is not None]
    return "derived" if all(derived) else "partly derived" if any(derived) else "calibrated"


def _uncertainty(profile: HardwareProfile) -> float:
    """The widest of the large operators."""
    from simserve.hardware.uncertainty import OPERATORS, uncertainty_of

    return max(uncertainty_of(profile, operator) for operator in OPERATORS)


def _show(args: argparse.Namespace) -> None:
    from simserve.hardware import load_hardware, stated_uncertainty

    profile = load_hardware(args.name)
    if args.json:
        without = {operator: {"columns", "rows"} for operator, _ in _operators(profile)}
        content = profile.model_dump(mode="json", exclude={"calibration": without})
        trust = {"calibrated": profile.calibrated, "uncertainty": stated_uncertainty(profile)}
        print(json.dumps(content | trust, indent=2))
        return
    _print_table((profile.name, ""), _facts(profile), left=(profile.name, ""))
    for operator, curves in _operators(profile):
        _print_table((operator, ""), _provenance(curves), left=(operator, ""))
    for anchors in profile.calibration.step_anchors if profile.calibration else ():
        name = f"whole steps of {anchors.model}"
        _print_table((name, ""), _measured_steps(anchors), left=(name, ""))


def _operators(profile: HardwareProfile) -> list[tuple[str, Curves]]:
    from simserve.hardware import Curves

    calibration = profile.calibration
    if calibration is None:
        return []
    fields = {name: getattr(calibration, name) for name in type(calibration).model_fields}
    return [(name, curves) for name, curves in fields.items() if isinstance(curves, Curves)]


def _facts(profile: HardwareProfile) -> list[tuple[str, str]]:
    """Every field of the data sheet that is known, and what step times rest on."""
    from simserve.hardware import stated_uncertainty

    content = profile.model_dump(mode="json", exclude={"name", "calibration"}, exclude_none=True)
    if profile.calibrated:
        content.pop("default_efficiency")
    if profile.calibration is not None:
        parts = {"conditions", "host", "dtype", "head_dim", "chunk_heads", "packs_query_heads"}
        content |= profile.calibration.model_dump(mode="json", include=parts, exclude_none=True)
    facts = [(key, _words(value)) for key, value in content.items()]
    return [*facts, ("step_times", _basis(profile)), ("uncertainty", stated_uncertainty(profile))]


def _provenance(curves: Curves) -> Iterable[tuple[str, str]]:
    if curves.derived:
        yield "derived from", f"{curves.derived.derived_from}: {curves.derived.because}"
        yield "uncertainty", f"±{curves.derived.uncertainty:.0%}"
    yield "source", curves.source
    yield "licence", curves.licence
    yield "measured with", curves.measured_with
    size = f"{len(curves.rows):,} rows of {len(curves.columns):,}"
    yield "measurements", f"{curves.points:,}, in {size}"
    yield "launch", f"{curves.launch_s * 1e6:.2f} µs"
    yield from _errors(curves.held_out)


def _measured_steps(anchors: StepAnchors) -> Iterable[tuple[str, str]]:
    def numbers(of: Iterable[float | str]) -> str:
        return ", ".join(f"{float(number):g}" for number in of)

    yield "dtype", anchors.dtype
    yield "decodes", numbers(anchors.decode_s)
    yield "tokens cached before a decode", numbers(anchors.contexts)
    yield "prompts", numbers(anchors.prompt_tokens)
    yield "chunks", f"{numbers(anchors.chunk_tokens)} on {numbers(anchors.chunk_s)}"
    yield "decodes beside a chunk", f"{len(anchors.mixed)} steps"
    yield "measurements", f"{anchors.points:,}"
    yield from _errors(anchors.held_out)


def _errors(held_out: Iterable[HeldOut]) -> Iterable[tuple[str, str]]:
    for held in held_out:
        error = f"median {held.median:.1%}, p95 {held.p95:.1%} of {held.points:,}"
        if held.summed_p90 is not None:
            error += f"; p90 of sums {held.summed_p90:.1%}"
        yield f"error, held-out {held.of}", error


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(part)}" for key, part in value.items())
    if isinstance(value, list):
        return ", ".join(map(_words, value))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _print_table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]], left: tuple[str, ...]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for name in header:
        table.add_column(name, justify="left" if name in left else "right")
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 120, markup=False).print(table)


def _plot(args: argparse.Namespace) -> None:
    from simserve.hardware import load_hardware

    profile = load_hardware(args.name)
    try:
        import matplotlib
    except ImportError:
        raise ConfigError("profiles plot needs matplotlib; install it with: pip install 'simserve[plot]'") from None
    matplotlib.use("Agg")
    from simserve.calibration.roofline import draw_roofline

    draw_roofline(profile, args.out)
    print(f"{args.out}: the roofline of {profile.name}")


def _import(args: argparse.Namespace) -> None:
    from simserve.calibration.import_profile import calibrated_profile, write_profile
    from simserve.calibration.limits import Source
    from simserve.calibration.tables import read_tables
    from simserve.hardware import load_hardware, stated_uncertainty

    if args.out.suffix.lower() not in (".yaml", ".yml"):
        raise ConfigError(f"--out {args.out} must end in .yaml, as profiles do")
    base = load_hardware(args.hardware)
    names = ", ".join(file.name for file in args.files)
    source = Source(args.source or f"{names} ({args.format})", args.licence, args.measured_with)
    profile = calibrated_profile(read_tables(args.files, args.format), base, args.out.stem, source)
    write_profile(profile, args.out)
    kept = dict(_operators(base))
    new = [operator for operator, curves in _operators(profile) if kept.get(operator) is not curves]
    print(f"{args.out}: {base.name} with {', '.join(new)} from {names}")
    print(f"uncertainty: {stated_uncertainty(profile)}; use it with --hardware {args.out}")
