"""A plan for people, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from simserve.sweep.plan.answer import (
    Plan,
    devices,
    joules_per_token,
    nearest,
    simulate_command,
    usd_per_hour,
    usd_per_million_tokens,
    vllm_command,
    watts,
)
from simserve.sweep.plan.candidates import Excluded
from simserve.sweep.plan.trial import Offer, Sized
from simserve.sweep.slo import Term

UNITS = {"max_concurrency": "users", "request_rate": "requests/s", "rate_scale": "times the trace"}
MOST_REASONS = 12
UNSURE = "? where low–high reaches beyond the limit: it may miss the SLO"


def report(plan: Plan) -> Sequence[RenderableType]:
    """The answer in words, then the table, then what was left out and why."""
    lines = [Text(sentence, style="bold" if not place else "") for place, sentence in enumerate(answer(plan))]
    table = [_table(plan)] if plan.offers else []
    notes = [*([UNSURE] if any(is_unsure(plan, offer) for offer in plan.offers) else []), *_left_out(plan)]
    return [*lines, *table, *(Text(line, style="dim") for line in notes)]


def is_unsure(plan: Plan, offer: Offer) -> bool:
    """Whether the SLO is missed at the slow end of what the profile's uncertainty allows."""
    return any(_is_unsure(offer, term) for term in plan.question.slo.terms)


def _is_unsure(offer: Offer, term: Term) -> bool:
    high = offer.result.get(f"{term.key}_high")
    return isinstance(high, (int, float)) and high > term.limit_ms


def answer(plan: Plan) -> list[str]:
    """A few sentences; the first one is the answer."""
    question = plan.question
    asked = f"{_load(plan, question.load)} within {question.slo}"
    if not plan.offers:
        return _impossible(plan, asked)
    best = plan.offers[0]
    cost, tokens = usd_per_hour(best), usd_per_million_tokens(best)
    money = f" for {cost:,.2f} USD/h ({tokens:,.2f} USD per million output tokens)" if cost and tokens else ""
    sentences = [f"{_what(best)} carry {asked}{money}.", f"It {_break(plan, best)}."]
    if is_unsure(plan, best):
        sure = next((offer for offer in plan.offers if not is_unsure(plan, offer)), None)
        instead = f"; {_what(sure)} would hold even then" if sure else ""
        sentences.append(f"If step times are at the slow end of what is known, it misses that{instead}.")
    result = best.result
    trust = "calibrated" if result["calibrated"] else "uncalibrated"
    sentences.append(
        f"Predicted, not measured: profile {result['hardware_profile']}, {trust}: {result['uncertainty']}."
    )
    return sentences


def as_json(plan: Plan) -> dict[str, Any]:
    """Everything: the answer, each offer with its run's result, what was left out."""
    return {
        "answer": answer(plan),
        "offers": [_offer_json(plan, offer) for offer in plan.offers],
        "do_not_carry_it": [{"candidate": str(one.candidate), "because": one.because} for one in plan.refused],
        "not_simulated": [{"candidate": str(one.candidate), "because": one.because} for one in plan.excluded],
    }


def _offer_json(plan: Plan, offer: Offer) -> dict[str, Any]:
    return {
        "hardware": offer.candidate.hardware,
        "tensor_parallel_size": offer.candidate.tensor_parallel_size,
        "quantization": offer.candidate.quantization,
        "replicas": offer.replicas,
        "devices": devices(offer),
        "settings": dict(offer.tuned),
        "usd_per_hour": usd_per_hour(offer),
        "usd_per_million_output_tokens": usd_per_million_tokens(offer),
        "watts": watts(offer),
        "joules_per_output_token": joules_per_token(offer),
        f"breaks_at_{plan.question.load_name}": offer.breaks_at,
        "because": offer.because,
        "may_miss_the_slo": is_unsure(plan, offer),
        "simulate": simulate_command(offer),
        "vllm": vllm_command(offer),
        "result": offer.result,
    }


def _table(plan: Plan) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("", justify="right")
    table.add_column("hardware", no_wrap=True)
    for term in plan.question.slo.terms:
        table.add_column(f"{term.metric} {term.statistic}, ms", justify="right")
    for name in ("tokens/s", "USD/h", "USD/1e6 tokens", "W", "J/token", "breaks at"):
        table.add_column(name, justify="right")
    table.add_column("because")
    for place, offer in enumerate(plan.offers, start=1):
        cost, tokens = usd_per_hour(offer), usd_per_million_tokens(offer)
        power, joules = watts(offer), joules_per_token(offer)
        table.add_row(
            str(place),
            _what(offer),
            *(_with_band(offer, term) for term in plan.question.slo.terms),
            f"{offer.result['output_throughput']:,.0f}",
            "-" if cost is None else f"{cost:,.2f}",
            "-" if tokens is None else f"{tokens:,.2f}",
            "-" if power is None else f"{power:,.0f}",
            "-" if joules is None else f"{joules:,.2f}",
            "-" if offer.breaks_at is None else _load(plan, offer.breaks_at),
            offer.because,
        )
    return table


def _with_band(offer: Offer, term: Term) -> str:
    value, low, high = (_figure(offer, term.key + end) for end in ("", "_low", "_high"))
    band = f" ({low:,.0f}–{high:,.0f})" if low is not None and high is not None else ""
    mark = " ?" if _is_unsure(offer, term) else ""
    return f"{value:,.0f}{band}{mark}" if value is not None else "-"


def _figure(offer: Offer, key: str) -> float | None:
    value = offer.result.get(key)
    return float(value) if isinstance(value, (int, float)) else None


def _what(offer: Offer) -> str:
    """``3 x A100``, ``2 x (4 x L4)``, with settings that are not the engine's own choice."""
    one = str(offer.candidate)
    number = f"{offer.replicas} x {f'({one})' if offer.candidate.tensor_parallel_size > 1 else one}"
    text = number if offer.replicas > 1 else (one if offer.candidate.tensor_parallel_size > 1 else f"1 x {one}")
    tuned = ", ".join(f"--{name.replace('_', '-')} {value}" for name, value in offer.tuned.items())
    return f"{text} with {tuned}" if tuned else text


def _load(plan: Plan, load: float) -> str:
    return (
        f"{load:,.4g} {UNITS[plan.question.load_name]}" if load % 1 else f"{load:,.0f} {UNITS[plan.question.load_name]}"
    )


def _break(plan: Plan, offer: Offer) -> str:
    if offer.breaks_at is None:
        return "does not break at four times that load"
    return f"breaks beyond {_load(plan, offer.breaks_at)} ({offer.because})"


def _impossible(plan: Plan, asked: str) -> list[str]:
    """Nothing will do: what physics allows, and what comes nearest."""
    sentences = [f"Nothing that may be used carries {asked}."]
    bounded = [one for one in plan.excluded if one.bound_ms is not None]
    if bounded:
        best = min(bounded, key=lambda one: one.bound_ms or 0.0)
        sentences.append(f"Physics allows {best.bound_ms:.1f} ms at best, on {best.candidate}: {best.because}.")
    near = nearest(plan)
    if near is not None:
        candidate, result = near
        parts = ", ".join(
            f"{t} is {result[t.key]:,.3g} ms" for t in plan.question.slo.terms if result[t.key] is not None
        )
        sentences.append(f"Nearest comes {candidate}: {parts}.")
    reasons = _left_out(plan)
    if near is None and not bounded:
        sentences += reasons
    return sentences


def _left_out(plan: Plan) -> list[str]:
    """Reasons, each once with all that it holds for."""
    by_reason: dict[str, list[str]] = {}
    left_out: list[Sized | Excluded] = [*plan.refused, *plan.excluded]
    for one in left_out:
        bounded = isinstance(one, Excluded) and one.bound_ms is not None
        reason = "reading the weights once takes longer than the SLO allows" if bounded else one.because
        by_reason.setdefault(_short(reason), []).append(str(one.candidate))
    lines = [
        f"not {', '.join(names[:6])}{' and others' if len(names) > 6 else ''}: {why}"
        for why, names in by_reason.items()
    ]
    more = len(lines) - MOST_REASONS
    return lines[:MOST_REASONS] + ([f"and {more} more, see --json"] if more > 0 else [])


def _short(reason: str) -> str:
    """Reasons of memory differ in their numbers only, and are told apart no further."""
    return "the model does not fit its memory" if "does not fit on" in reason else reason
