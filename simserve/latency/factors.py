"""What whole steps take over the sum of their operators: the factors that carry anchors to another model.

Host time is taken off the measured step first. Factors are kept by phase: decodes by batch and context, prompts by
tokens, cached tokens before a chunk, decodes beside a chunk.
"""

from __future__ import annotations

import numpy as np

from simserve.hardware import HostTimes, MixedStep, StepAnchors
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
        self.beside, self.more_chunk_s = self._mixed_factors()

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
        added, left, whole = np.array(points).T
        return _fitted(added[:, None], left, whole)[0]

    def _mixed_factors(self) -> tuple[float, float]:
        """Of the attention of decodes beside a chunk; and seconds per layer of each chunk after the first."""
        sums, parts, left_s, step_s = self._sums, [], [], []
        for step in self._anchors.mixed:
            rows, requests = padded_rows(step, self._anchors.row_block), step.chunks + step.decodes
            added_s = sums.chunk_s(step.chunk, step.cached) - sums.chunk_s(step.chunk, 0)
            attention_s = self.prompt_at(step.chunk) * sums.chunk_s(step.chunk, 0) + self.cached * added_s
            known_s = self.prompt_at(rows) * sums.rows_s(rows, requests) + step.chunks * attention_s
            beside_s = sums.beside_s(step.decodes, step.decodes * step.context) if step.decodes else 0.0
            parts.append((beside_s, (step.chunks - 1) * float(sums.layers_count)))
            left_s.append(step.seconds - self._host_s(requests) - known_s)
            step_s.append(step.seconds)
        beside, more_chunk_s = _fitted(np.array(parts).reshape(-1, 2), np.array(left_s), np.array(step_s))
        return beside, more_chunk_s

    def _chunk_alone_s(self, tokens: int) -> float:
        return self.prompt_at(tokens) * (self._sums.rows_s(tokens, 1) + self._sums.chunk_s(tokens, 0))

    def _host_s(self, requests: int) -> float:
        return self._host.step_s + self._host.request_s * requests


def padded_rows(step: MixedStep, row_block: int) -> int:
    """Rows that the engine computes in ``step``."""
    rows = step.chunk * step.chunks + step.decodes
    return rows + -rows % row_block


def _fitted(parts: Floats, left_s: Floats, step_s: Floats) -> list[float]:
    """A factor for each column of ``parts``, none below 0, so that their sum comes closest to what is ``left_s``.

    Least squares, relative to the step. Without points the operators' own time is all that is known: 1, then 0.
    """
    factors = [1.0] + [0.0] * (parts.shape[1] - 1)
    known = np.flatnonzero((parts > 0).any(axis=0))
    while known.size:
        scaled = parts[:, known] / step_s[:, None]
        found = np.linalg.lstsq(scaled, left_s / step_s)[0]
        if (found >= 0).all():
            for column, factor in zip(known.tolist(), found.tolist(), strict=True):
                factors[column] = factor
            break
        for column in known[found < 0].tolist():
            factors[column] = 0.0
        known = known[found >= 0]
    return factors
