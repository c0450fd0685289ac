"""What only the machine itself can tell: whole engine steps, the host's share of them, and how it was all measured.

Operators measured one by one miss what they do to each other (caches, wake-ups). Whole steps of the real engine do
not, so they anchor what the operators' sum says; see ``simserve.latency.anchored``.
"""

from __future__ import annotations

from datetime import date as Date
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from simserve.hardware.held_out import HeldOut
from simserve.hardware.parts import Dtype, Numbers, Part, check_growing

Seconds = Annotated[float, Field(ge=0, lt=10)]


class Conditions(Part):
    """Under which conditions a calibration was measured. On a CPU the number of threads belongs to the device."""

    device: str
    dtype: Dtype
    threads: Annotated[int, Field(ge=1)]
    """Threads that torch computed with."""
    versions: dict[str, str]
    date: Date
    suite: Literal["full", "quick"]
    """``quick`` has few points and repeats: enough to try things out, not to believe them."""
    duration_s: Annotated[float, Field(ge=0)]
    noise: Annotated[float, Field(ge=0)]
    """Median over all points of half the spread of a point's repeats (10th to 90th percentile), relative."""
    unquiet: Annotated[float, Field(ge=0, le=1)]
    """Share of points for which other programs or the hypervisor left no quiet moment."""
    drift: float
    """How much slower (or, below 0, faster) the machine was at the end than at the start."""


class HostTimes(Part):
    """What the engine's host does in every step beside the operators, for each request in it, to start an operator."""

    step_s: Seconds
    request_s: Seconds
    launch_s: Seconds = 0.0


class MixedStep(Part):
    """One step of ``decodes`` on ``context`` tokens each, and ``chunks`` of ``chunk`` tokens on ``cached`` each."""

    decodes: Annotated[int, Field(ge=0)]
    context: Annotated[int, Field(ge=0)]
    chunk: Annotated[int, Field(ge=1)]
    cached: Annotated[int, Field(ge=0)]
    chunks: Annotated[int, Field(ge=1)] = 1
    seconds: Annotated[float, Field(gt=0)]


class StepAnchors(Part):
    """Whole steps of one model in the real engine, in seconds from one token to the next, host included.

    A context is what is in the KV cache before the step, the same for each decode of a batch.
    """

    model: str
    shape: dict[str, Any]
    """All sizes of the model: two with the same take the same time. See ``simserve.latency.anchored.shape_of``."""
    dtype: Dtype
    contexts: Numbers
    decode_s: Annotated[dict[str, Numbers], Field(min_length=1)]
    """By number of decodes, at each of ``contexts``."""
    prompt_tokens: Numbers
    prompt_s: Numbers
    """Prompts alone, with nothing cached."""
    chunk_tokens: Numbers
    chunk_s: Annotated[dict[str, Numbers], Field(min_length=1)]
    """By cached tokens, at each of ``chunk_tokens``: the chunk that ends a prompt."""
    mixed: tuple[MixedStep, ...] = ()
    row_block: Annotated[int, Field(ge=1)] = 1
    """Steps with a chunk are padded to a multiple of so many rows."""
    points: Annotated[int, Field(ge=1)]
    held_out: tuple[HeldOut, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> StepAnchors:
        for name in ("contexts", "prompt_tokens", "chunk_tokens"):
            check_growing(name, getattr(self, name))
        tables = (
            ("decode_s", self.decode_s, self.contexts, 1),
            ("chunk_s", self.chunk_s, self.chunk_tokens, 0),
            ("prompt_s", {"0": self.prompt_s}, self.prompt_tokens, 0),
        )
        for name, rows, columns, least in tables:
            for key, row in rows.items():
                if len(row) != len(columns):
                    raise ValueError(f"{name} {key} has {len(row)} values, but there are {len(columns)} columns")
                if not all(value > 0 for value in row):
                    raise ValueError(f"{name} {key} holds a time that is not above 0")
                if not key.isdigit() or int(key) < least:
                    raise ValueError(f"{name} {key} must be named by a whole number from {least}")
            check_growing(f"the rows of {name}", tuple(float(key) for key in rows))
        return self

    def held_out_of(self, kind: str) -> HeldOut | None:
        """The error on held-out ``kind`` ("steps", "models"), if it was measured."""
        return next((held for held in self.held_out if held.of == kind), None)
