"""Times between consecutive tokens in one step, a few numbers for however many sequences."""

from __future__ import annotations

from simserve.scheduling.speculative import SpeculativePlan
from simserve.simulation.replica import Run


def token_gaps(run: Run) -> list[tuple[float, int]]:
    """(seconds since its last token, how many tokens) for all tokens of ``run`` but the first of each request.

    ``run`` is one step, and has just ended. A decode's gap is the step's length, for it had its last token when the
    step began, unless it paused, or a front end sends tokens at times of its own; see
    :class:`simserve.simulation.recorder.Recorder`, which pools the same gaps.
    """
    plan, sent_s = run.plan, run.sent_s
    followed = plan.num_decodes - plan.padding - len(plan.returning)
    recomputed = [chunk.request for chunk in plan.chunks if chunk.samples and chunk.request.first_token_s != sent_s]
    gaps = [(sent_s - request.last_token_s, 1) for request in (*plan.returning, *recomputed)]
    for stall in plan.resuming:
        gaps.append((sent_s - stall.last_token_s, stall.count))
        followed -= stall.count
    if isinstance(plan, SpeculativePlan) and plan.extra_tokens:
        gaps.append((0.0, plan.extra_tokens))
    if followed:
        gaps.append((run.end_s - run.start_s if run.gaps_s is None else float(run.gaps_s[-1]), followed))
    return gaps
