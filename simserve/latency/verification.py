"""How long a step takes that verifies drafts: more rows for each decode, and the drafter's own small steps.

Matrix products see the rows of all drafts. Attention reads each sequence's KV once for all its rows, as kernels that
pack the queries of a sequence into one tile do, and computes every (row, key) pair: it takes as long as the slower one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from simserve.hardware import HardwareProfile
from simserve.latency.step_timer import StepTimer
from simserve.models import ModelSpec

Chunks = Sequence[tuple[int, int]]


class VerifyingStepTimer(StepTimer):
    """A :class:`StepTimer` whose decodes may have several rows each.

    ``draft`` is the timer of a model that drafts ``draft_tokens`` tokens in every step, one after the other; None where
    drafting costs the device nothing. ``max_seqs`` counts rows that are sampled from.
    """

    def __init__(
        self,
        model: ModelSpec,
        hardware: HardwareProfile,
        *,
        draft: VerifyingStepTimer | None = None,
        draft_tokens: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(model, hardware, **options)
        self._draft = draft
        self._draft_tokens = draft_tokens

    def verify_s(self, decodes: int, rows: int, context_tokens: int, chunks: Chunks, prompts_end: int) -> float:
        """Seconds for a step with ``rows`` rows of ``decodes`` sequences whose contexts sum to ``context_tokens``.

        ``prompts_end`` of the ``chunks``, (tokens, context tokens) each, yield a token. With one row for each decode
        and no drafter it is :meth:`step_s`.
        """
        device_s = self.device_s(decodes, rows, context_tokens, chunks, rows + prompts_end)
        if self._draft is not None:
            device_s += self._drafting_s(self._draft, decodes, rows, context_tokens, chunks, prompts_end)
        return self._host.seconds(device_s, decodes + len(chunks))

    def device_s(self, decodes: int, rows: int, context_tokens: int, chunks: Chunks, sampled: int) -> float:
        """The same for the device alone, without a drafter; ``sampled`` rows go through the lm_head."""
        prefill = self._prefill
        tokens, longest = rows, 0
        attention_s = prefill.launch_s if chunks else 0.0
        for chunk, context in chunks:
            tokens += chunk
            longest = max(longest, chunk)
            attention_s += prefill.lines.of(chunk).at(context) - prefill.launch_s
        if decodes:
            attended = context_tokens + rows
            if chunks:
                idle_tiles = -(-longest // prefill.tile_rows) - 1
                read_s = self._mixed.lines.of(decodes).at(attended) + decodes * idle_tiles * self._mixed.idle_s
            else:
                read_s = self._decode.lines.of(decodes).at(attended)
            attention_s += max(read_s, self._pairs_s(decodes, rows, context_tokens))
        return self._body_s[tokens] + self._head_s[sampled] + self._layers_count * attention_s

    def _pairs_s(self, decodes: int, rows: int, context_tokens: int) -> float:
        """Seconds that all (row, key) pairs of one layer take to compute, all sequences with equally many rows."""
        if rows == decodes:
            return 0.0
        each = rows / decodes
        pairs = each * context_tokens + rows * (each + 1) / 2
        return pairs * self._prefill.pair_s

    def _drafting_s(
        self, draft: VerifyingStepTimer, decodes: int, rows: int, context_tokens: int, chunks: Chunks, prompts_end: int
    ) -> float:
        """The drafter first reads what the step computed, then makes one token after the other."""
        sequences = decodes + prompts_end
        if not sequences:
            return draft.device_s(0, 0, 0, chunks, 0)
        first_s = draft.device_s(decodes, rows, context_tokens, chunks, sequences)
        context_tokens += rows + sum(tokens + context for tokens, context in chunks)
        later = range(1, self._draft_tokens)
        return first_s + sum(
            draft.device_s(sequences, sequences, context_tokens + step * sequences, (), sequences) for step in later
        )
