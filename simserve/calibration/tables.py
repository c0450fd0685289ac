"""Tables of measured operators as a user gives them: told apart by their columns, refused with line and reason.

``csv`` is the plain format for measurements of your own: attention of one layer with heads of 128, all in bfloat16.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import reduce
from pathlib import Path

import numpy as np

from simserve.calibration.importers import aiconfigurator, llmservingsim, vidur
from simserve.calibration.importers.table import number, read_columns, read_rows
from simserve.calibration.points import AllReducePoints, AttentionPoints, ElementwisePoints, GemmPoints, MixedPoints
from simserve.errors import HardwareError


@dataclass(frozen=True)
class Measured:
    """Points by operator; None for what was not measured."""

    gemm: GemmPoints | None = None
    decode: AttentionPoints | None = None
    prefill: AttentionPoints | None = None
    mixed: MixedPoints | None = None
    elementwise: ElementwisePoints | None = None
    all_reduce: AllReducePoints | None = None

    def joined(self, other: Measured) -> Measured:
        """These points and ``other``'s."""
        both = {}
        for operator in (field.name for field in fields(self)):
            own, more = getattr(self, operator), getattr(other, operator)
            both[operator] = own.joined(more) if own and more else own or more
        return Measured(**both)


@dataclass(frozen=True)
class Kind:
    """One kind of table: the columns that tell it apart, those with whole numbers from 1, and its reader."""

    columns: tuple[str, ...]
    read: Callable[[Path], Measured]
    counts: tuple[str, ...] = ()


def read_tables(files: list[Path], table_format: str) -> Measured:
    """All points of ``files``, each of one of the kinds of ``table_format``; see FORMATS.

    Raises :class:`HardwareError` naming file, line and reason where a table is broken or not of this format.
    """
    return reduce(Measured.joined, (_read(file, FORMATS[table_format], table_format) for file in files))


def _read(file: Path, kinds: tuple[Kind, ...], table_format: str) -> Measured:
    try:
        _, first = next(iter(read_rows(file, ())))
        kind = next((kind for kind in kinds if first.keys() >= set(kind.columns)), None)
        if kind is None:
            known = " or ".join(",".join(kind.columns) for kind in kinds)
            raise HardwareError(f"{file}, line 1: is no {table_format} table, which would have columns {known}")
        _check_counts(file, kind.counts)
        return kind.read(file)
    except (UnicodeDecodeError, csv.Error, OSError, EOFError) as error:
        raise HardwareError(f"{file}: is not a table of text ({error})") from None


def _check_counts(file: Path, counts: tuple[str, ...]) -> None:
    for line, row in read_rows(file, counts):
        for name in counts:
            value = number(file, line, name, row[name])
            if value < 1 or value != int(value):
                raise HardwareError(f"{file}, line {line}: {name} is {row[name]}, but must be a whole number from 1")


def _attention(file: Path) -> Measured:
    """Decodes have prompts of one token, prompts have no steps; a table holds only one of them."""
    table = read_columns(file, ("isl", "step"))
    points = aiconfigurator.read_attention(file)
    if (table["isl"] == 1).all():
        return Measured(decode=points)
    cached = np.flatnonzero(table["step"] > 0)
    if cached.size:
        line = [line for line, _ in read_rows(file, ())][int(cached[0])]
        raise HardwareError(f"{file}, line {line}: step is not 0, though the table holds prompts (isl above 1)")
    return Measured(prefill=points)


def _all_reduce(file: Path) -> Measured:
    points = aiconfigurator.read_all_reduce(file)
    if len(points) == 0:
        raise HardwareError(f"{file}, line 2: no row has the backend vllm_graph, the only one that can be used here")
    return Measured(all_reduce=points)


def _layers_us(file: Path) -> Measured:
    gemms, small = llmservingsim.read_layers_us(file)
    return Measured(gemm=gemms if len(gemms) else None, elementwise=small if len(small) else None)


def _layers_ns(file: Path) -> Measured:
    devices = re.search(r"tp([1248])(?!\d)", file.name)
    if devices is None:
        raise HardwareError(f"{file}, line 1: on how many devices was it measured? Put tp1 or tp2 into the file's name")
    return Measured(gemm=llmservingsim.read_layers_ns(file, int(devices[1])))


def _mixed(file: Path) -> Measured:
    points = llmservingsim.read_mixed_attention(file)
    chunk, decodes = points.chunk > 0, points.decodes > 0
    needed = {
        "a chunk alone": chunk & ~decodes,
        "decodes alone": decodes & ~chunk,
        "decodes beside the smallest chunk with nothing cached": decodes
        & chunk
        & (points.cached == 0)
        & (points.chunk == np.min(points.chunk, where=chunk, initial=np.inf)),
    }
    for what, rows in needed.items():
        if not rows.any():
            raise HardwareError(f"{file}, line {len(points) + 1}: the table ends without a row of {what}")
    return Measured(mixed=points)


def _small_operators(file: Path) -> Measured:
    points = vidur.read_small_operators(file)
    if len(points) == 0:
        raise HardwareError(f"{file}, line 2: no row was measured on one device (num_tensor_parallel_workers of 1)")
    return Measured(elementwise=points)


_SHAPE = ("num_heads", "num_kv_heads", "sequences")


def _plain_gemms(file: Path) -> Measured:
    table = read_columns(file, ("m", "n", "k", "time_s"))
    return Measured(gemm=GemmPoints(table["time_s"], table["m"], table["n"], table["k"]))


def _plain_attention(file: Path, tokens: str) -> AttentionPoints:
    table = read_columns(file, (*_SHAPE, tokens, "time_s"))
    return AttentionPoints(table["time_s"], *(table[name] for name in (*_SHAPE, tokens)))


FORMATS: dict[str, tuple[Kind, ...]] = {
    "aiconfigurator": (
        Kind(("gemm_dtype", "m", "n", "k", "latency_ms"), lambda file: Measured(gemm=aiconfigurator.read_gemms(file)),
             ("m", "n", "k")),
        Kind(("attn_dtype", "batch_size", "isl", "step", "latency_ms"), _attention,
             ("batch_size", "isl", "num_heads", "num_key_value_heads")),
        Kind(("allreduce_dtype", "num_gpus", "message_size", "latency_ms"), _all_reduce, ("num_gpus", "message_size")),
    ),
    "llmservingsim": (
        Kind(("layer", "time_us"), _layers_us),
        Kind(("prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us"), _mixed),
        Kind(("tokens", "o_proj", "gate_proj", "down_proj", "lm_head"), _layers_ns, ("tokens",)),
    ),
    "vidur": (
        Kind(("num_tokens", "num_tensor_parallel_workers", "input_layernorm_ms"), _small_operators,
             ("num_tokens", "n_embd", "n_head", "n_kv_head", "n_expanded_embd")),
    ),
    "csv": (
        Kind(("m", "n", "k", "time_s"), _plain_gemms, ("m", "n", "k")),
        Kind((*_SHAPE, "context_tokens", "time_s"),
             lambda file: Measured(decode=_plain_attention(file, "context_tokens")), (*_SHAPE, "context_tokens")),
        Kind((*_SHAPE, "prompt_tokens", "time_s"),
             lambda file: Measured(prefill=_plain_attention(file, "prompt_tokens")), (*_SHAPE, "prompt_tokens")),
    ),
}  # fmt: skip
"""Kinds of tables by format: whoever publishes them, or ``csv`` for your own."""
