"""Records of steps that yield several tokens to a request: those that come together are 0 seconds apart."""

from __future__ import annotations

from simserve.scheduling.plan import Stall
from simserve.scheduling.request import Request
from simserve.scheduling.speculative import SpeculativePlan
from simserve.simulation.recorder import MIXED_ROW, Recorder
from simserve.simulation.replica import Run


class SpeculativeRecorder(Recorder):
    """Of an engine whose plans are :class:`SpeculativePlan`."""

    def run_done(self, run: Run, finished: list[Request]) -> None:
        """See :meth:`Recorder.run_done`; no run is one of plain decodes alone."""
        run.plan.resuming = (Stall(run.plan.index, 0),)
        super().run_done(run, finished)

    def _note_mixed(self, run: Run) -> None:
        plan, late_gaps_s = run.plan, self._late_gaps_s
        assert isinstance(plan, SpeculativePlan)
        sent_s = run.end_s + run.lag_s
        busy_s = run.end_s - run.start_s
        gap_s = busy_s if run.gaps_s is None else run.gaps_s[0]
        pairs = kv_tokens = 0.0
        for chunk in plan.chunks:
            tokens, context = chunk.tokens, chunk.context_tokens
            pairs += tokens * (context + (tokens + 1) / 2)
            kv_tokens += tokens + context
            if chunk.samples and chunk.request.first_token_s != sent_s:
                late_gaps_s.append(sent_s - chunk.request.last_token_s)
        late_gaps_s.extend(sent_s - request.last_token_s for request in plan.returning)
        late_gaps_s.extend([0.0] * plan.extra_tokens)
        rows, decodes = plan.rows, plan.num_decodes
        if decodes:  # of its pairs, the timer counts one for each token of context and each row by itself
            each = rows / decodes
            pairs += (each - 1) * plan.decode_context_tokens + rows * (each - 1) / 2
        batch = decodes - plan.padding
        self._mixed_runs += MIXED_ROW(
            rows, plan.decode_context_tokens, plan.prefill_tokens, pairs, kv_tokens,
            rows + plan.num_sampled_chunks, batch + len(plan.chunks), batch - len(plan.returning), busy_s, gap_s,
        )  # fmt: skip
