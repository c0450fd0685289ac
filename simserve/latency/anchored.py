"""Step times anchored in whole steps that were measured in the real engine.

What operators do to each other in a step (caches they empty, threads they wake) does not show when each is measured by
itself: on a CPU their sum comes out a tenth to a third too low. So a profile may hold whole steps of some models. For
one of these its grid answers, by straight lines between the measured steps. For any other, what each layer of the
anchors' model took beyond its operators is added to its own, at the same number of rows: half of it as it is, as what
starting operators takes would be, and half in proportion to the width, as activations that come from memory would be.
Multiplying instead made a model of twice the width 15 % too slow.

As fast as ``StepTimer``: everything is compiled when a batch or a chunk size is first met.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simserve.hardware import Curves, HardwareProfile, HostTimes, StepAnchors
from simserve.latency.factors import Factors, padded_rows
from simserve.latency.lines import Floats, Lines, weights_between
from simserve.latency.model_shape import model_of, shape_of
from simserve.latency.operator_sums import OperatorSums
from simserve.latency.step_timer import SHORT_RUN_STEPS
from simserve.models import ModelSpec

SAME_MODEL_UNCERTAINTY, OTHER_MODEL_UNCERTAINTY = 0.05, 0.12
"""Relative half-widths that predictions have at least, see docs/calibrate.md: machines do not repeat themselves better
than by the first."""


def anchors_for(model: ModelSpec, hardware: HardwareProfile, dtype: str) -> StepAnchors | None:
    """The whole steps that predict ``model`` best: its own, else those of the model next in size; None without any."""
    calibration = hardware.calibration
    known = [anchors for anchors in calibration.step_anchors if anchors.dtype == dtype] if calibration else []
    shape = shape_of(model)

    def apart(anchors: StepAnchors) -> tuple[bool, float]:
        sizes = model_of(anchors).active_parameters / model.active_parameters
        return anchors.shape != shape, abs(float(np.log(sizes)))

    return min(known, key=apart, default=None)


def anchored_uncertainty(model: ModelSpec, hardware: HardwareProfile, anchors: StepAnchors) -> float:
    """How far off a step of ``model`` predicted from ``anchors`` may be: a relative half-width."""
    calibration = hardware.calibration
    assert calibration is not None
    conditions = calibration.conditions
    at_least = [abs(conditions.drift), conditions.noise] if conditions else []
    same = anchors.shape == shape_of(model)
    held = anchors.held_out_of("steps" if same else "models")
    errors = [held.median] if held else []
    if same:
        return max([SAME_MODEL_UNCERTAINTY, *at_least, *errors])
    operators = (calibration.gemm, calibration.decode_attention, calibration.chunk_attention)
    errors += [held.median for curves in operators if isinstance(curves, Curves) for held in curves.held_out]
    return max([OTHER_MODEL_UNCERTAINTY, *at_least, *errors])


def anchored_basis(model: ModelSpec, anchors: StepAnchors) -> str:
    """What such a step rests on, in words."""
    if anchors.shape == shape_of(model):
        return "from whole steps of this model, measured on this device"
    return f"from operators and whole steps of {anchors.model}, measured on this device"


class AnchoredStepTimer(OperatorSums):
    """Steps of SimServe's torch engine on the machine that ``hardware`` was calibrated on; host time is included."""

    def __init__(
        self, model: ModelSpec, hardware: HardwareProfile, anchors: StepAnchors, *, max_tokens: int, max_seqs: int
    ) -> None:
        self._row_block = anchors.row_block
        most_rows = max_tokens + -max_tokens % self._row_block
        super().__init__(model, hardware, dtype=anchors.dtype, max_tokens=most_rows, max_seqs=max_seqs)
        calibration = hardware.calibration
        self._host_times = (calibration and calibration.host) or HostTimes(step_s=0.0, request_s=0.0)
        self._same_model = anchors.shape == shape_of(model)
        sums = OperatorSums(
            model_of(anchors),
            hardware,
            dtype=anchors.dtype,
            max_tokens=max(_most_rows(anchors), most_rows),
            max_seqs=max(_most_sampled(anchors), max_seqs),
        )
        self._anchor_sums, self._surplus = sums, _surplus_share(model, sums.model)
        self._factors = Factors(anchors, sums, self._host_times)
        self._row_factors: dict[int, float] = {}
        self._steps: dict[int, Lines] = {}
        self._chunks: dict[int, tuple[Lines, float]] = {}
        self._cached = self._layers_count * self._factors.cached
        self._more_chunk_s = self._layers_count * self._factors.more_chunk_s

    def step_s(
        self, decodes: int, decode_context_tokens: int, chunks: Sequence[tuple[int, int]], sampled: int
    ) -> float:
        """See :meth:`StepTimer.step_s`."""
        if not chunks:
            return self._decode_lines(decodes).at(decode_context_tokens)
        tokens = decodes
        pairs = kv_tokens = decode_context_tokens + decodes
        device_s = self._factors.beside * self.beside_s(decodes, decode_context_tokens) if decodes else 0.0
        for chunk, context in chunks:
            tokens += chunk
            pairs += chunk * context + chunk * (chunk + 1) // 2
            kv_tokens += chunk + context
            lines, alone_s = self._chunk_lines(chunk)
            device_s += alone_s + self._cached * lines.at(context)
        tokens += -tokens % self._row_block
        device_s += self._row_factor(tokens) * self.rows_s(tokens, sampled) + (len(chunks) - 1) * self._more_chunk_s
        least_s = max(self.least_s(tokens, sampled, pairs, kv_tokens))
        return max(device_s, least_s) + self._host_s(decodes + len(chunks))

    def decode_steps_s(self, decodes: int, decode_context_tokens: int, steps: int) -> Floats | list[float]:
        """See :meth:`StepTimer.decode_steps_s`."""
        lines = self._decode_lines(decodes)
        if steps <= SHORT_RUN_STEPS:
            return lines.at_steps(decode_context_tokens, decodes, steps)
        return lines.at_all(np.arange(steps, dtype=np.float64) * decodes + decode_context_tokens)

    def _decode_lines(self, decodes: int) -> Lines:
        """Whole steps of ``decodes`` decodes alone, over the tokens they have in the cache together."""
        found = self._steps.get(decodes)
        if found is None:
            found = self._steps[decodes] = self._new_decode_lines(decodes)
        return found

    def _new_decode_lines(self, decodes: int) -> Lines:
        factors = self._factors
        low, high, share = weights_between(factors.batches, decodes)
        if not self._same_model:
            contexts = np.maximum(self._decode.contexts - 1, 0)
            between = [np.interp(contexts, factors.contexts, factors.decode[row]) for row in (low, high)]
            over = (1 - share) * between[0] + share * between[1] - 1
            surplus_s = self._surplus * over * self._anchor_sums.decodes_s(decodes, contexts)
            own_s = self.decodes_s(decodes, contexts)
            seconds = own_s + surplus_s + self._host_s(decodes)
            factor = 1 + surplus_s[-1] / own_s[-1]
        else:
            contexts = factors.contexts
            measured = factors.decode_seconds
            seconds = (1 - share) * measured[low] + share * measured[high]
            if decodes > factors.batches[-1]:
                last = int(factors.batches[-1])
                seconds = seconds * self.decodes_s(decodes, contexts) / self.decodes_s(last, contexts)
            factor = (1 - share) * factors.decode[low, -1] + share * factors.decode[high, -1]
        far = np.array([contexts[-1], 2 * contexts[-1] + 1])
        slope = factor * np.diff(self.decodes_s(decodes, far))[0] / np.diff(far)[0]
        least_slope = np.diff(self._least_decodes_s(decodes, far))[0] / np.diff(far)[0]
        seconds = np.maximum(seconds, self._least_decodes_s(decodes, contexts))
        return Lines(contexts * decodes, seconds, float(max(slope, least_slope)) / decodes)

    def _least_decodes_s(self, decodes: int, contexts: Floats) -> Floats:
        attended = (contexts + 1) * decodes
        least_s: Floats = np.maximum(*self.least_s(decodes, decodes, attended, attended))
        return least_s + self._host_s(decodes)

    def _chunk_lines(self, tokens: int) -> tuple[Lines, float]:
        """Attention of a chunk by itself, over the cached tokens, and what to add to its share of cached tokens."""
        found = self._chunks.get(tokens)
        if found is None:
            lines = self._prefill.lines.of(tokens)
            alone_s = self._row_factor(tokens) * self.chunk_s(tokens, 0) - self._cached * lines.at(0)
            found = self._chunks[tokens] = lines, alone_s
        return found

    def _row_factor(self, tokens: int) -> float:
        """What a prompt of so many tokens takes over its operators.

        For the anchors' own model it makes a prompt alone come out on the straight line between measured ones.
        """
        found = self._row_factors.get(tokens)
        if found is None:
            factors = self._factors
            if self._same_model and factors.prompt_tokens[0] <= tokens <= factors.prompt_tokens[-1]:
                straight_s = float(np.interp(tokens, factors.prompt_tokens, factors.prompt_device_s))
                found = straight_s / (self.rows_s(tokens, 1) + self.chunk_s(tokens, 0))
            else:
                anchor_s, own_s = (
                    sums.rows_s(tokens, 1) + sums.chunk_s(tokens, 0) for sums in (self._anchor_sums, self)
                )
                found = 1 + self._surplus * (factors.prompt_at(tokens) - 1) * anchor_s / own_s
            self._row_factors[tokens] = found
        return found

    def _host_s(self, requests: int) -> float:
        return self._host_times.step_s + self._host_times.request_s * requests


def _surplus_share(model: ModelSpec, anchored: ModelSpec) -> float:
    """How much of what ``anchored`` takes beyond its operators ``model`` takes beyond its own; see above."""
    return model.num_layers / anchored.num_layers * (1 + model.hidden_size / anchored.hidden_size) / 2


def _most_rows(anchors: StepAnchors) -> int:
    mixed = [padded_rows(step, anchors.row_block) for step in anchors.mixed]
    return int(max(*anchors.prompt_tokens, *anchors.chunk_tokens, *mixed, _most_sampled(anchors)))


def _most_sampled(anchors: StepAnchors) -> int:
    return max(*(int(batch) for batch in anchors.decode_s), *(step.decodes + step.chunks for step in anchors.mixed), 1)
