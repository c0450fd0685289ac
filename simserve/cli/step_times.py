"""``simserve models steps``: how long single steps of an engine take, as every command reckons them."""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from simserve.cli.options import add_engine_arguments, add_model_hardware_arguments, engine_options, model_and_hardware
from simserve.errors import ConfigError

if TYPE_CHECKING:
    from simserve.simulation import EngineSetup

USUAL_DECODES, USUAL_PROMPTS = "1x1024,32x1024,128x1024", "512,1024"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``simserve models steps``."""
    parser.add_argument("--json", action="store_true", help="JSON, not a table")
    parser.add_argument(
        "--decodes",
        metavar="NxTOKENS,...",
        default=USUAL_DECODES,
        help=f"N decodes on so many tokens ({USUAL_DECODES})",
    )
    parser.add_argument(
        "--prompts", metavar="TOKENS[+CACHED],...", default=USUAL_PROMPTS,
        help=f"a prompt, or a chunk behind tokens in the KV cache ({USUAL_PROMPTS})",
    )  # fmt: skip
    add_model_hardware_arguments(parser)
    add_engine_arguments(parser)


@dataclass(frozen=True)
class Step:
    """Decodes of equal context, or one chunk of a prompt; ``at_least_s`` is the roofline's."""

    name: str
    seconds: float
    low_s: float
    high_s: float
    at_least_s: float


def run(args: argparse.Namespace) -> int:
    """Print the times of the steps that were asked for."""
    from simserve.simulation import prepare

    options = engine_options(args)
    model, hardware = model_and_hardware(args)
    setups = [prepare(model, hardware, options, edge) for edge in (0, -1, 1)]
    decodes = [_decodes(setups, *pair) for pair in _numbers(args.decodes, "--decodes", r"(\d+)x(\d+)")]
    prompts = [_prompt(setups, *pair) for pair in _numbers(args.prompts, "--prompts", r"(\d+)(?:\+(\d+))?")]
    steps, setup = [*decodes, *prompts], setups[0]
    if args.json:
        about = {"model": model.name, "hardware_profile": hardware.name, "uncertainty": setup.uncertainty}
        print(json.dumps(about | {"steps": [asdict(step) for step in steps]}, indent=2))
    else:
        _print_table(steps, setup)
    return 0


def _numbers(text: str, flag: str, pattern: str) -> list[tuple[int, int]]:
    found = [re.fullmatch(pattern, part.strip()) for part in text.split(",")]
    if not all(found):
        raise ConfigError(f"{flag} {text} is not understood: see simserve models steps --help")
    return [(int(match[1]), int(match[2] or 0)) for match in found if match]


def _decodes(setups: list[EngineSetup], decodes: int, context: int) -> Step:
    most = setups[0].limits.max_num_seqs
    if not 1 <= decodes <= most:
        raise ConfigError(f"a step has 1 to {most} decodes and not {decodes}: see --max-num-seqs")
    total = decodes * context
    seconds, low_s, high_s = (setup.timer.step_s(decodes, total, [], decodes) for setup in setups)
    at_least_s = _least_s(setups[0], (1, decodes, total, 0, 0, 0, decodes))
    name = f"{decodes:,} decode{'s' if decodes > 1 else ''}, {context:,} tokens each"
    return Step(name, seconds, low_s, high_s, at_least_s)


def _prompt(setups: list[EngineSetup], tokens: int, cached: int) -> Step:
    most = setups[0].limits.max_num_batched_tokens
    if not 1 <= tokens <= most:
        raise ConfigError(f"a step has 1 to {most} tokens of a prompt and not {tokens}: see --max-num-batched-tokens")
    seconds, low_s, high_s = (setup.timer.step_s(0, 0, [(tokens, cached)], 1) for setup in setups)
    pairs = tokens * cached + tokens * (tokens + 1) / 2
    at_least_s = _least_s(setups[0], (1, 0, 0, tokens, pairs, tokens + cached, 1))
    name = f"prompt of {tokens:,} tokens" + (f" behind {cached:,}" if cached else "")
    return Step(name, seconds, low_s, high_s, at_least_s)


def _least_s(setup: EngineSetup, columns: tuple[float, ...]) -> float:
    work = setup.timer.total_work(*(np.array([float(value)]) for value in columns))
    hardware = setup.hardware
    peak = max(hardware.peak_flops_for(dtype) for dtype in (setup.formats.dtype, setup.formats.weights.computed_in))
    return max(work.flops / peak, work.bytes_moved / hardware.bandwidth_bytes_per_s)


def _print_table(steps: list[Step], setup: EngineSetup) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{setup.model.name} on {setup.hardware.name}, {setup.formats.label}", title_justify="left")
    table.add_column("step")
    for name in ("ms", "low", "high", "at least"):
        table.add_column(name, justify="right")
    for step in steps:
        times_s = (step.seconds, step.low_s, step.high_s, step.at_least_s)
        table.add_row(step.name, *(f"{each_s * 1e3:,.2f}" for each_s in times_s))
    console = Console(width=None if sys.stdout.isatty() else 120, markup=False)
    console.print(table)
    console.print(f"profile {setup.hardware.name}: {setup.uncertainty}")
    console.print("at least: its FLOPs at the peak of the data sheet, or its bytes at full bandwidth")
