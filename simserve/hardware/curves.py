"""Measured efficiency curves of one device, as a profile's ``calibration:`` holds them.

An operator takes ``(launch_s + bound_s) / efficiency`` seconds, where ``bound_s`` is max(FLOPs / peak, bytes /
bandwidth): efficiency is at most 1, so nothing comes out faster than the device can be. Rows of numbers are written
as text, which keeps a profile short and quick to read.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from simserve.hardware.anchors import Conditions, HostTimes, StepAnchors
from simserve.hardware.held_out import HeldOut
from simserve.hardware.parts import Dtype, Numbers, Part, check_growing


class Derived(Part):
    """An operator never measured on this device: its curves are those of another, relative to the peaks of this one."""

    derived_from: str
    because: str
    uncertainty: Annotated[float, Field(gt=0, le=1)]
    """Relative half-width expected of a time predicted so, beyond the error that the curves have at home."""


class Curves(Part):
    """Efficiencies in rows, one column per entry of ``columns``; a row's key holds whole numbers joined by ``x``.

    ``source``, ``licence``, ``measured_with`` and ``points`` say where they come from and on how much they rest.
    """

    source: str
    licence: str
    measured_with: str
    points: Annotated[int, Field(ge=1)]
    held_out: tuple[HeldOut, ...] = ()
    """On the device that was measured, also where the curves are derived."""
    derived: Derived | None = None
    """Set where a profile took the curves over from another device."""
    launch_s: Annotated[float, Field(ge=0, lt=1e-3)] = 0.0
    """The fastest time measured: what starting the operator costs however little it does."""
    columns: Numbers
    rows: Annotated[dict[str, Numbers], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> Curves:
        check_growing("columns", self.columns)
        for key, row in self.rows.items():
            if len(row) != len(self.columns):
                raise ValueError(f"row {key} has {len(row)} values, but there are {len(self.columns)} columns")
            self._check_row(key, row)
        return self

    def _check_row(self, key: str, row: tuple[float, ...]) -> None:
        if not all(0 < value <= 1 for value in row):
            raise ValueError(f"row {key} holds an efficiency that is not above 0 and at most 1")
        if not all(part.isdigit() for part in key.split("x")) or key.count("x") != self._key_parts() - 1:
            raise ValueError(f"row {key} must be named by {self._key_parts()} whole numbers joined by x")

    def _key_parts(self) -> int:
        return next(iter(self.rows)).count("x") + 1

    def row_numbers(self) -> list[tuple[int, ...]]:
        """The rows' keys as numbers, in order."""
        return [tuple(int(part) for part in key.split("x")) for key in self.rows]


class Rates(Curves):
    """Bytes per second of small operators by name over bytes, as a fraction of memory bandwidth.

    More than 1 is possible here and only here: what one operator leaves in the last cache the next one reads from it.
    """

    def _check_row(self, key: str, row: tuple[float, ...]) -> None:
        if not all(value > 0 for value in row):
            raise ValueError(f"row {key} holds a rate that is not above 0")


class PrefillCurves(Curves):
    """Prefill attention from an empty cache, and how it goes on behind cached tokens.

    Rows are ``query heads x KV heads x sequences``, columns tokens of each sequence.
    """

    context_efficiency: Annotated[float, Field(gt=0, le=1)]
    """Fraction of peak FLOP/s reached over cached tokens by a grid that fills the device."""
    tile_rows: Annotated[int, Field(ge=1)]
    """Query rows that one thread block works on: a chunk is computed in whole tiles."""


class MixedCurves(Curves):
    """Decodes that share their attention kernel with a prefill chunk; rows are sequences, columns context tokens.

    Measured with ``kv_heads`` KV heads; the efficiency is relative to reading the KV cache once.
    """

    kv_heads: Annotated[int, Field(ge=1)]
    idle_block_s: Annotated[float, Field(ge=0)]
    """Device time of a thread block that finds nothing to do: every decode gets as many tiles as the longest chunk."""


class Calibration(Part):
    """Efficiency curves by operator; an operator left out runs at the profile's default efficiencies.

    gemm: rows ``n x k``, columns tokens (m). quantized_gemm: the same for int8 weights and activations.
    decode_attention: rows ``query heads per KV head x KV heads x (sequences * KV heads)``, columns context tokens.
    prefill_attention: see :class:`PrefillCurves`. chunk_attention: rows context tokens, columns tokens of the chunk,
    for ``chunk_heads`` query heads. mixed_decode: see :class:`MixedCurves`. elementwise: rows by operator, columns
    bytes. all_reduce: rows devices, columns bytes of the message, relative to a ring over the link.
    ``conditions``, ``host`` and ``step_anchors`` are there where ``simserve calibrate`` measured the machine it ran on.
    """

    conditions: Conditions | None = None
    host: HostTimes | None = None
    step_anchors: tuple[StepAnchors, ...] = ()
    dtype: Dtype = "bfloat16"
    """In which all but ``quantized_gemm`` was measured; float16 counts as the same."""
    head_dim: int = 128
    """Of all attention curves."""
    packs_query_heads: bool = True
    """Whether decodes beside a prefill chunk read the KV cache once for all query heads that share it."""
    gemm: Curves | Derived | None = None
    quantized_gemm: Curves | Derived | None = None
    decode_attention: Curves | Derived | None = None
    prefill_attention: PrefillCurves | Derived | None = None
    chunk_attention: Curves | Derived | None = None
    chunk_heads: int = 32
    mixed_decode: MixedCurves | Derived | None = None
    elementwise: Rates | Derived | None = None
    all_reduce: Curves | Derived | None = None
