"""What whole steps take over the sum of their operators: the factors that carry anchors to another model.

Host time is taken off the measured step first. Factors are kept by phase: decodes by batch and context, prompts by
tokens, cached tokens behind a chunk, decodes beside a chunk.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from simserve.hardware import HostTimes, StepAnchors
from simserve.latency.lines import Floats
from simserve.latency.operator_sums import OperatorSums


class Factors:
    """Of ``anchors``, whose model's operators are ``sums``."""

    def __init__(self, anchors: StepAnchors, sums: OperatorSums, host: HostTimes) -> None:
        self._anchors, self._sums = anchors, sums
        self._host = host
        self.batches = np.array([float(batch) for batch in anchors.decode_s])
        self.contexts = np.array(anchors.contexts)
        self.decode_seconds = np.array(list(anchors.decode_s.values()))
        """Measured whole steps over (batch, context)."""
        self.decode = self._decode_factors()
        self.prompt_tokens = np.array(anchors.prompt_tokens)
        self.prompt_device_s = np.array(anchors.prompt_s) - host.step_s - host.request_s
        self.prompt = self._prompt_factors()
        self.cached = self._cached_factor()
        self.beside = self._beside_factor()

    def prompt_at(self, tokens: float) -> float:
        """Factor of so many rows, by straight lines."""
        return float(np.interp(tokens, self.prompt_tokens, self.prompt))

    def _decode_factors(self) -> Floats:
        """Over (batch, context)."""
        rows = []
        for batch, seconds in zip(self.batches, self.decode_seconds, strict=True):
            host_s = self._host.step_s + self._host.request_s * batch
            rows.append((seconds - host_s) / self._sums.decodes_s(int(batch), self.contexts))
        return np.array(rows)

    def _prompt_factors(self) -> Floats:
        tokens = self.prompt_tokens.astype(int).tolist()
        sums = np.array([self._sums.rows_s(n, 1) + self._sums.chunk_s(n, 0) for n in tokens])
        factors: Floats = self.prompt_device_s / sums
        return factors

    def _cached_factor(self) -> float:
        """Of the time that cached tokens add to a chunk's attention."""
        points = []
        for cached, row in self._anchors.chunk_s.items():
            for tokens, seconds in zip(self._anchors.chunk_tokens, row, strict=True):
                alone_s = self._chunk_alone_s(int(tokens))
                added_s = self._sums.chunk_s(int(tokens), int(cached)) - self._sums.chunk_s(int(tokens), 0)
                points.append((added_s, seconds - self._host_s(1) - alone_s, seconds))
        return _fitted(points)

    def _beside_factor(self) -> float:
        """Of the attention of decodes beside a chunk."""
        points = []
        for step in self._anchors.mixed:
            rows = step.chunk + step.decodes
            added_s = self._sums.chunk_s(step.chunk, step.cached) - self._sums.chunk_s(step.chunk, 0)
            alone_s = self.prompt_at(rows) * self._sums.rows_s(rows, 1 + step.decodes)
            alone_s += self.prompt_at(step.chunk) * self._sums.chunk_s(step.chunk, 0) + self.cached * added_s
            left_s = step.seconds - self._host_s(1 + step.decodes) - alone_s
            points.append((self._sums.beside_s(step.decodes, step.decodes * step.context), left_s, step.seconds))
        return _fitted(points)

    def _chunk_alone_s(self, tokens: int) -> float:
        return self.prompt_at(tokens) * (self._sums.rows_s(tokens, 1) + self._sums.chunk_s(tokens, 0))

    def _host_s(self, requests: int) -> float:
        return self._host.step_s + self._host.request_s * requests


def _fitted(points: Iterable[tuple[float, float, float]]) -> float:
    """The factor f, not below 0, for which f * part comes closest to what is left of a step, relative to the step.

    Least squares over (part, left, step); 1 without points, as when the operators' own time is all that is known.
    """
    above = below = 0.0
    for part_s, left_s, step_s in points:
        above += part_s * left_s / step_s**2
        below += part_s**2 / step_s**2
    return max(above / below, 0.0) if below else 1.0
