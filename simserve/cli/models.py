"""``simserve models``: the models that SimServe knows by name, and what follows from a model's shapes."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from simserve.cli import step_times
from simserve.cli.options import GB

if TYPE_CHECKING:
    from simserve.models import ModelSpec

KB = 2**10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``simserve models``."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, purpose in (("list", "every model that is shipped, in a line"), ("show", "one model and its operators")):
        action = actions.add_parser(name, help=purpose, formatter_class=parser.formatter_class, allow_abbrev=False)
        action.add_argument("--json", action="store_true", help="JSON, not a table")
        if name == "show":
            action.add_argument("name", metavar="NAME", help="a model SimServe ships, or a folder with its config.json")
    purpose = "how long steps of a model take on hardware"
    step_times.add_arguments(
        actions.add_parser("steps", help=purpose, formatter_class=parser.formatter_class, allow_abbrev=False)
    )


def run(args: argparse.Namespace) -> int:
    """Print what was asked for."""
    from simserve.models import list_models, load_model

    if args.action == "steps":
        return step_times.run(args)
    if args.action == "list":
        _list([load_model(name) for name in list_models()], as_json=args.json)
    else:
        _show(load_model(args.name), as_json=args.json)
    return 0


def _list(models: list[ModelSpec], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([_sizes(model) for model in models], indent=2))
        return
    rows = [
        (
            model.name,
            f"{model.num_parameters / 1e9:,.2f}",
            f"{model.active_parameters / 1e9:,.2f}",
            model.dtype,
            f"{model.weight_bytes / GB:,.1f}",
            f"{model.kv_bytes_per_token() / KB:,.0f}",
            f"{model.max_model_len:,}",
        )
        for model in models
    ]
    header = ("name", "1e9 params", "active", "dtype", "weights, GB", "kB/token", "most tokens")
    _print_table(header, rows)


def _sizes(model: ModelSpec) -> dict[str, Any]:
    """Parameters and bytes on one device that holds the whole model."""
    from simserve.models import DTYPE_BYTES

    return {
        "name": model.name,
        "architecture": model.architecture,
        "parameters": model.num_parameters,
        "active_parameters": model.active_parameters,
        "dtype": model.dtype,
        "quantization": model.quantization and model.quantization.label,
        "published_weight_bytes": model.weight_bytes,
        "max_model_len": model.max_model_len,
        "weight_bytes": {dtype: model.weight_bytes_for(dtype) for dtype in DTYPE_BYTES},
        "kv_bytes_per_token": {dtype: model.kv_bytes_per_token(dtype) for dtype in DTYPE_BYTES},
    }


def _show(model: ModelSpec, *, as_json: bool) -> None:
    sizes, attention = _sizes(model), asdict(model.attention())
    if as_json:
        gemms = [asdict(gemm) | {"weights": gemm.weights} for gemm in model.gemms()]
        content = sizes | {"layers": model.num_layers, "hidden_size": model.hidden_size, "vocab_size": model.vocab_size}
        print(json.dumps(content | {"gemms": gemms, "attention": attention}, indent=2))
        return
    published = [model.dtype, *([model.quantization.label] if model.quantization else [])]
    facts = [
        ("architecture", model.architecture),
        ("parameters", f"{model.num_parameters:,}"),
        ("active per token", f"{model.active_parameters:,}"),
        ("published in", f"{', '.join(published)}: {model.weight_bytes / GB:,.1f} GB"),
        ("longest sequence", f"{model.max_model_len:,} tokens"),
        ("layers", f"{model.num_layers:,} of width {model.hidden_size:,}, vocabulary {model.vocab_size:,}"),
        ("attention", ", ".join(f"{name} {value}" for name, value in attention.items())),
    ]
    _print_table((model.name, ""), facts, right=())
    bytes_by_dtype = [
        (dtype, f"{weights / GB:,.2f}", f"{sizes['kv_bytes_per_token'][dtype]:,}")
        for dtype, weights in sizes["weight_bytes"].items()
    ]
    _print_table(("dtype", "weights, GB", "KV bytes per token"), bytes_by_dtype)
    operators = [
        (gemm.name, f"{gemm.n:,}", f"{gemm.k:,}", f"{gemm.count:,}", f"{gemm.weights:,}", gemm.kind, gemm.parallel)
        for gemm in model.gemms()
    ]
    header = ("matrix product", "n", "k", "times a step", "weights each", "kind", "split by")
    _print_table(header, operators, right=header[1:5])


def _print_table(
    header: tuple[str, ...], rows: Iterable[tuple[str, ...]], right: tuple[str, ...] | None = None
) -> None:
    """Print ``rows``; the columns ``right`` (all but the first by default) are figures."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for name in header:
        is_figure = name in (header[1:] if right is None else right)
        table.add_column(name, justify="right" if is_figure else "left")
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 120, markup=False).print(table)
