"""A replica that verifies drafts: its steps have several rows for each decode, and yield several tokens."""

from __future__ import annotations

from simserve.latency.verification import VerifyingStepTimer
from simserve.scheduling import StepPlan
from simserve.scheduling.speculative import SpeculativePlan
from simserve.simulation.features.counts import Counts
from simserve.simulation.features.fetching_replica import FetchingReplica
from simserve.simulation.replica import Replica, Run


class SpeculativeReplica(Replica):
    """Needs :meth:`count_in` before the first request comes, and a scheduler that speculates."""

    def count_in(self, counts: Counts, timer: VerifyingStepTimer) -> None:
        """Add what is drafted and accepted to ``counts``; steps take what ``timer``, the replica's own, says."""
        self._drafted, self._verifier = counts.totals, timer

    def _begin(self, plan: StepPlan, now: float) -> None:
        assert isinstance(plan, SpeculativePlan)
        chunks = [(chunk.tokens, chunk.context_tokens) for chunk in plan.chunks]
        for chunk in plan.chunks:
            if chunk.request.scheduled_s != chunk.request.scheduled_s:  # NaN: its first step
                chunk.request.scheduled_s = now
        duration_s = self._verifier.verify_s(
            plan.num_decodes, plan.rows, plan.decode_context_tokens, chunks, plan.num_sampled_chunks
        )
        self._run = Run(plan, now, duration_s)
        self._wake.set(self._run.end_s)
        counted = self._drafted
        counted["spec_drafts"] += plan.drafts
        counted["spec_draft_tokens"] += plan.drafted_tokens
        counted["spec_accepted_tokens"] += plan.accepted_tokens
        counted["spec_rows_in_vain"] += plan.padding


class SpeculativeFetchingReplica(FetchingReplica, SpeculativeReplica):
    """The same over tiers of KV."""
