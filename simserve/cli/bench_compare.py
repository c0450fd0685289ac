"""``simserve bench compare``: two results side by side, ours or those of ``vllm bench serve``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from simserve.cli.simulate import PIPE_COLUMNS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``simserve bench compare``."""
    parser.add_argument("before", type=Path, metavar="A.json", help="a result of simserve bench or vllm bench serve")
    parser.add_argument("after", type=Path, metavar="B.json", help="another")
    parser.add_argument("--lang", choices=("en", "zh"), default="en", help="language of the labels (en)")


def run(args: argparse.Namespace) -> int:
    """Print every figure that both have, and what speaks against comparing them."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from simserve.bench.report.compare import compare_results, label, read_result

    comparison = compare_results(read_result(args.before), read_result(args.after))
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=True)
    for column in (args.before.name, args.after.name, "B / A"):
        table.add_column(column, justify="right", overflow="fold")
    for change in comparison.changes:
        ratio = "" if change.ratio is None else f"{change.ratio:.3f}"
        table.add_row(label(change.name, args.lang), f"{change.before:,.2f}", f"{change.after:,.2f}", ratio)
    console = Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS, highlight=False)
    console.print(table)
    for doubt in comparison.doubts:
        console.print(doubt)
    return 0
