"""Whole steps of the real engine: a grid of decodes, prompts, chunks on cached tokens and mixtures of both.

The cost over batch x context has a knee where the KV cache outgrows the processor's caches, so that at least four
contexts per batch are needed: with two, prototypes were off by up to a third between them. There are stairs over the
batch, where a product takes another kernel or block of rows (on an AVX512 core from 2 to 3 and from 6 to 7), so that
batches stand close together up to 16.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from simserve.calibration.microbench.bench import Bench, Pace, Series, Timing
from simserve.calibration.microbench.stopwatch import Call
from simserve.hardware import HeldOut, MixedStep, StepAnchors
from simserve.hardware.parts import Dtype
from simserve.latency import StepTimer
from simserve.latency.model_shape import shape_of
from simserve.models import ModelSpec


class Step(NamedTuple):
    """``decodes`` on ``context`` cached tokens each, and the last ``chunk`` of ``chunks`` prompts on ``cached``."""

    decodes: int = 0
    context: int = 0
    chunk: int = 0
    cached: int = 0
    chunks: int = 1

    @property
    def prompts(self) -> list[tuple[int, int]]:
        """(tokens, tokens cached before) of each chunk."""
        return [(self.chunk, self.cached)] * self.chunks if self.chunk else []

    @property
    def rows(self) -> int:
        """Tokens that are computed."""
        return self.decodes + self.chunk * self.chunks

    @property
    def requests(self) -> int:
        """How many take part."""
        return self.decodes + len(self.prompts)

    @property
    def kv_tokens(self) -> int:
        """Tokens that are in the KV cache in the end."""
        return self.decodes * (self.context + 1) + (self.chunk + self.cached) * self.chunks

    def predicted_s(self, timer: StepTimer) -> float:
        """What ``timer`` says of it."""
        return timer.step_s(self.decodes, self.decodes * self.context, self.prompts, self.requests)


class StepRunner(Protocol):
    """The real engine, as far as whole steps are concerned."""

    def prepare(self, step: Step) -> Call:
        """A call that runs ``step`` and returns when its tokens are there; again and again the same step."""
        ...


@dataclass(frozen=True)
class Grid:
    """Which steps are measured; ``held_out`` are kept from the fit."""

    batches: tuple[int, ...]
    contexts: tuple[int, ...]
    prompts: tuple[int, ...]
    chunks: tuple[int, ...]
    cached: tuple[int, ...]
    mixed: tuple[Step, ...]
    held_out: tuple[Step, ...]

    @property
    def steps(self) -> list[Step]:
        """All of them, each once."""
        decodes = [Step(decodes=batch, context=context) for batch in self.batches for context in self.contexts]
        prompts = [Step(chunk=tokens) for tokens in self.prompts]
        chunks = [Step(chunk=tokens, cached=cached) for tokens in self.chunks for cached in self.cached]
        return list(dict.fromkeys([*decodes, *prompts, *chunks, *self.mixed, *self.held_out]))

    @property
    def most_tokens(self) -> int:
        """KV tokens that the largest step needs."""
        return max(step.kv_tokens for step in self.steps)

    def within(self, most_context: int, most_tokens: int) -> Grid:
        """What of it fits a model's longest sequence and the KV cache: large batches go first, then long contexts."""
        contexts = tuple(context for context in self.contexts if context < most_context)
        batches = tuple(batch for batch in self.batches if batch * (contexts[-1] + 1) <= most_tokens)

        def fits(step: Step) -> bool:
            longest = max(step.context + 1, step.chunk + step.cached)
            return longest <= most_context and step.kv_tokens <= most_tokens and step.decodes <= max(batches)

        return Grid(
            batches,
            contexts,
            tuple(tokens for tokens in self.prompts if tokens <= most_context),
            tuple(tokens for tokens in self.chunks if tokens + self.cached[0] <= most_context),
            tuple(cached for cached in self.cached if self.chunks[0] + cached <= most_context),
            tuple(filter(fits, self.mixed)),
            tuple(filter(fits, self.held_out)),
        )


FULL = Grid(
    batches=(1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 24, 32),
    contexts=(16, 200, 500, 1000, 1900),
    prompts=(16, 64, 160, 256, 320, 512, 640, 1024),
    chunks=(64, 256),
    cached=(256, 768, 1536),
    mixed=(
        Step(4, 400, 64), Step(8, 400, 256), Step(16, 200, 496), Step(12, 600, 128, 384), Step(24, 600, 200),
        Step(0, 0, 150, 0, 2), Step(8, 300, 100, 0, 3), Step(4, 300, 60, 0, 4),
    ),
    held_out=(
        Step(1, 300), Step(1, 1400), Step(3, 600), Step(6, 130), Step(9, 700), Step(11, 300), Step(20, 400),
        Step(32, 130), Step(chunk=100), Step(chunk=400), Step(chunk=800), Step(chunk=128, cached=500),
        Step(6, 300, 128), Step(20, 300, 300), Step(10, 500, 120, 0, 2), Step(0, 0, 200, 0, 3), Step(14, 500, 90),
    ),
)  # fmt: skip
GPU = Grid(
    batches=(1, 2, 4, 8, 16, 32, 64, 128),
    contexts=(16, 128, 512, 1024, 2048, 4096),
    prompts=(16, 64, 128, 256, 512, 1024, 2048, 4096),
    chunks=(128, 512),
    cached=(512, 2048),
    mixed=(
        Step(8, 512, 256), Step(32, 1024, 512), Step(64, 512, 1024), Step(32, 1024, 256, 1024), Step(0, 0, 512, 0, 3),
        Step(16, 512, 256, 0, 4),
    ),
    held_out=(
        Step(1, 300), Step(6, 1500), Step(12, 700), Step(24, 300), Step(48, 1500), Step(96, 800), Step(chunk=200),
        Step(chunk=700), Step(chunk=1500), Step(chunk=256, cached=1000), Step(16, 700, 384), Step(48, 800, 300, 0, 2),
    ),
)  # fmt: skip
QUICK = Grid(
    batches=(1, 4), contexts=(16, 64, 128, 192), prompts=(16, 64, 128), chunks=(32,), cached=(64,),
    mixed=(Step(2, 64, 32), Step(2, 64, 32, 0, 2)), held_out=(Step(2, 100), Step(chunk=96)),
)  # fmt: skip


def series_of(bench: Bench, runner: StepRunner, grid: Grid, pace: Pace) -> Series[Step]:
    """All steps of ``grid``, ready to be timed; the median of each counts.

    Decodes follow upon themselves, as they do most of the time: after other steps they take a few percent longer.
    """
    calls = {step: runner.prepare(step) for step in grid.steps}
    return Series(bench, calls, pace, follows_itself=lambda step: not step.chunk)


def anchors_of(
    model: ModelSpec, dtype: Dtype, grid: Grid, timings: dict[Step, Timing], row_block: int = 1
) -> StepAnchors:
    """The grid as a profile holds it; what was held out is not in it. See there for ``row_block``."""

    def seconds(steps: Iterable[Step]) -> tuple[float, ...]:
        return tuple(timings[step].seconds for step in steps)

    return StepAnchors(
        model=model.name,
        shape=shape_of(model),
        dtype=dtype,
        contexts=grid.contexts,
        decode_s={str(batch): seconds(Step(batch, context) for context in grid.contexts) for batch in grid.batches},
        prompt_tokens=grid.prompts,
        prompt_s=seconds(Step(chunk=tokens) for tokens in grid.prompts),
        chunk_tokens=grid.chunks,
        chunk_s={
            str(cached): seconds(Step(chunk=tokens, cached=cached) for tokens in grid.chunks) for cached in grid.cached
        },
        mixed=tuple(MixedStep(**step._asdict(), seconds=timings[step].seconds) for step in grid.mixed),
        row_block=row_block,
        points=len(grid.steps) - len(grid.held_out),
    )


def error_on(kind: str, steps: Sequence[Step], timings: dict[Step, Timing], timer: StepTimer) -> HeldOut | None:
    """How far ``timer`` is off on ``steps``; None for none."""
    if not steps:
        return None
    errors = [abs(step.predicted_s(timer) / timings[step].seconds - 1) for step in steps]
    median, p95 = np.percentile(errors, (50, 95))
    return HeldOut.model_validate(
        {"of": kind, "points": len(errors), "median": round(float(median), 4), "p95": round(float(p95), 4)}
    )
