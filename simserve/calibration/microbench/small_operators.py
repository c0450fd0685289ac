"""The small operators between the large ones, as the engine runs them: norms, activation, rotary positions, sampling.

Named and counted as ``simserve.latency.elementwise`` does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from simserve.calibration.microbench.bench import Bench, Pace, Progress
from simserve.calibration.microbench.machine import Machine
from simserve.calibration.points import ElementwisePoints
from simserve.models import ModelSpec

if TYPE_CHECKING:
    import torch

    from simserve.engines.torch.sampler import Sampler
    from simserve.engines.torch.sequence import Sequence as Sampled

TOKENS, GPU_TOKENS, QUICK_TOKENS = (1, 8, 32, 128, 512), (1, 32, 512, 2048, 8192), (1, 32)
SAMPLED, QUICK_SAMPLED = (1, 8, 32), (1, 4)
LOGIT_BYTES = 4
Case = tuple[float, Callable[[], object]]
"""Bytes moved, and the call."""


def measure_small_operators(
    bench: Bench, machine: Machine, models: Sequence[ModelSpec], pace: Pace, quick: bool, progress: Progress
) -> ElementwisePoints:
    """Each operator of each of ``models`` over numbers of rows."""
    tokens = QUICK_TOKENS if quick else GPU_TOKENS if machine.kind == "gpu" else TOKENS
    cases: dict[tuple[str, float], Callable[[], object]] = {}
    for model in models:
        operators = _Operators(machine, model)
        for rows in tokens:
            cases |= {(name, moved): call for name, (moved, call) in operators.of_rows(rows).items()}
        for rows in QUICK_SAMPLED if quick else SAMPLED:
            moved, call = operators.sampler(rows)
            cases["sampler", moved] = call
    timings = bench.measure(cases, pace, progress=progress)
    return ElementwisePoints(
        np.array([timing.seconds for timing in timings.values()]),
        np.array([name for name, _ in timings]),
        np.array([moved for _, moved in timings]),
    )


class _Operators:
    """Those of one model."""

    def __init__(self, machine: Machine, model: ModelSpec) -> None:
        self._machine, self._model = machine, model
        self._width = machine.dtype.itemsize

    def of_rows(self, rows: int) -> dict[str, Case]:
        """Everything that a step of ``rows`` tokens runs between its large operators, by name."""
        import torch
        import torch.nn.functional as F

        from simserve.engines.torch.details import read_details
        from simserve.engines.torch.layers import RmsNorm
        from simserve.engines.torch.rope import Rope

        model, device, dtype = self._model, self._machine.device, self._machine.dtype
        x, residual = self._random(rows, model.hidden_size), self._random(rows, model.hidden_size)
        gate_up = self._random(rows, (2 if model.gated_mlp else 1) * model.intermediate_size)
        heads = self._random(rows, model.num_heads + model.num_kv_heads, model.head_dim)
        table = self._random(min(model.vocab_size, 4096), model.embedding_size)
        ids = torch.arange(rows, device=device) % len(table)
        norm = RmsNorm(self._random(model.hidden_size), 1e-5)
        rope = Rope(read_details(model), model.head_dim, device, dtype)
        turns = rope.tables(ids)
        moved = {
            "norm": 4 * x.numel(),
            "activation": gate_up.numel() + rows * model.intermediate_size,
            "rope": 2 * heads.numel(),
            "embedding": 2 * rows * model.hidden_size,
        }
        calls: dict[str, Callable[[], object]] = {
            "norm": lambda: norm(x + residual),
            "activation": partial(_activation, gate_up, model.gated_mlp),
            "rope": lambda: rope.turn_(heads, turns),
            "embedding": lambda: F.embedding(ids, table),
        }
        return {name: (moved[name] * self._width, calls[name]) for name in calls}

    def sampler(self, rows: int) -> Case:
        """From logits to tokens, the likeliest each, as measured runs sample."""
        from simserve.engines.base import SamplingParams
        from simserve.engines.torch.sampler import Sampler
        from simserve.engines.torch.sequence import Sequence as Sampled

        logits = self._random(rows, self._model.vocab_size)
        greedy = SamplingParams(temperature=0.0)
        sequences = [Sampled(str(row), [0], 1, greedy) for row in range(rows)]
        sampler = Sampler()
        call = partial(_sample, sampler, logits, sequences)
        return rows * self._model.vocab_size * LOGIT_BYTES, call

    def _random(self, *shape: int) -> torch.Tensor:
        import torch

        return torch.randn(*shape, device=self._machine.device).to(self._machine.dtype)


def _sample(sampler: Sampler, logits: torch.Tensor, sequences: Sequence[Sampled]) -> object:
    return sampler.sample(logits.float(), sequences)


def _activation(gate_up: torch.Tensor, gated: bool) -> torch.Tensor:
    import torch.nn.functional as F

    if not gated:
        return F.relu(gate_up)
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate).mul_(up)
