"""From what the simulation ran to what observers are told."""

from __future__ import annotations

from simserve.engines.handout import LiveRequest
from simserve.engines.reports import Ending, FirstToken, StepReport
from simserve.simulation import Run
from simserve.simulation.gaps import token_gaps


def step_report(run: Run) -> StepReport:
    """Sums of a run of one step that has just ended."""
    plan, sent_s = run.plan, run.sent_s
    first = [chunk.request for chunk in plan.chunks if chunk.samples and chunk.request.first_token_s == sent_s]
    return StepReport(
        start_s=run.start_s,
        end_s=run.end_s,
        decodes=plan.num_decodes,
        prefill_chunks=len(plan.chunks),
        prefill_tokens=plan.prefill_tokens,
        output_tokens=plan.num_sampled - plan.padding,
        preempted=len(plan.preempted),
        gaps=token_gaps(run),
        first_tokens=[FirstToken(sent_s - one.arrival_s, one.input_tokens, one.cached_tokens) for one in first],
    )


def finished(request: LiveRequest, replica: str | None = None) -> Ending:
    """The end of a request that had its last token, of ``replica``."""
    return _ending(request, request.finish_s, request.finish_reason, request.produced_tokens, replica)


def aborted(request: LiveRequest, time_s: float, replica: str | None = None) -> Ending:
    """The end of a request that was given up at ``time_s``, with the tokens that it had handed out by then."""
    return _ending(request, time_s, "abort", request.stream.produced_tokens, replica)


def failed(request: LiveRequest, time_s: float, replica: str | None = None) -> Ending:
    """The end at ``time_s`` of a request that the engine could not go on with."""
    return _ending(request, time_s, "error", request.stream.produced_tokens, replica)


def _ending(request: LiveRequest, time_s: float, reason: str, output_tokens: int, replica: str | None) -> Ending:
    return Ending(
        request_id=str(request.request_id),
        time_s=time_s,
        arrival_s=request.arrival_s,
        finish_reason=reason,
        input_tokens=request.input_tokens,
        output_tokens=output_tokens,
        max_tokens=request.max_tokens,
        cached_tokens=request.cached_tokens,
        prefix_hashes=request.units,
        unit_tokens=request.unit_tokens,
        timing=None if reason in ("abort", "error") else request.timing,
        replica=replica,
        adapter=request.adapter_name,
    )
