"""What a report says besides latencies, line by line: a label and a text each, in either language."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from simserve.bench.report.words import Language, word
from simserve.bench.run import BenchRun
from simserve.bench.self_test.measure import SelfTest


def heading(run: BenchRun) -> str:
    """Whom was asked what, and how fast."""
    plan = run.plan
    return f"{plan.model} at {plan.server.address.url}{plan.path} ({plan.backend.name}): {load_text(run)}"


def load_text(run: BenchRun) -> str:
    """The load that was asked for."""
    plan, shape = run.plan, run.plan.shape
    parts = [f"{len(run.outcomes):,} x {plan.options.questions.dataset}"]
    if shape.ramp is not None:
        parts.append(f"{shape.ramp[1]:g} to {shape.ramp[2]:g} requests/s ({shape.ramp[0]})")
    elif shape.keeps_arrivals:
        parts.append(f"as recorded, {plan.schedule.rate:.4g} requests/s")
    elif math.isfinite(shape.request_rate):
        parts.append(f"{shape.request_rate:g} requests/s")
    if shape.max_concurrency is not None:
        parts.append(f"at most {shape.max_concurrency:,} at once")
    elif shape.is_closed_loop:
        parts.append("all at once")
    if shape.duration_s is not None:
        parts.append(f"for {shape.duration_s:g} s")
    return ", ".join(parts)


def figure_lines(run: BenchRun, language: Language, self_test: SelfTest | None = None) -> list[tuple[str, str]]:
    """Counts, throughput and all else that is no latency."""

    def said(key: str, **values: object) -> tuple[str, str]:
        return word(key, language), word(f"{key}_line", language, **values)

    figures = run.figures
    lines = [(word("requests", language), _requests(run, language)), (word("tokens", language), _tokens(run, language))]
    lines.append((word("duration", language), f"{figures.duration_s:,.2f} s"))
    lines.append((word("throughput", language), _throughput(run, language)))
    if run.steady is not None and not run.plan.backend.is_pooling:
        steady = run.steady
        lines.append(
            said(
                "steady",
                start=steady.start_s,
                end=steady.end_s,
                requests=steady.request_throughput,
                output=steady.output_throughput,
                ttft=milliseconds(steady.ttft.at[0]),
                e2el=milliseconds(steady.e2el.at[0]),
            )
        )
    lines.append(said("peak", requests=figures.max_concurrent_requests, tokens=figures.max_output_tokens_per_s))
    if figures.request_goodput is not None and figures.slo_share is not None:
        slos = " ".join(f"{name}:{limit_s * 1e3:g}" for name, limit_s in run.slos_s.items())
        lines.append(said("goodput", rate=figures.request_goodput, share=figures.slo_share, slos=slos))
    if figures.cached_tokens is not None and figures.total_input_tokens:
        lines.append(said("cache", share=figures.cached_tokens / figures.total_input_tokens))
    if figures.audio_s:
        rtfx = figures.audio_s / figures.duration_s if figures.duration_s else 0.0
        lines.append(said("audio", seconds=figures.audio_s, rtfx=rtfx))
    if run.speculation is not None:
        speculation = run.speculation
        lines.append(said("drafts", rate=speculation.acceptance_rate, length=speculation.acceptance_length))
    lines.append(said("client", **client_health(run)))
    if self_test is not None:
        lines.append(
            said(
                "self_test",
                ttft=milliseconds(self_test.ttft_mean_s),
                ttft_p99=milliseconds(self_test.ttft_p99_s),
                itl=milliseconds(self_test.itl_mean_s, 3),
                e2el=milliseconds(self_test.e2el_mean_s),
            )
        )
    return lines


def client_health(run: BenchRun) -> dict[str, object]:
    """How the client did: lags as text, CPU as a share of a core and per chunk."""
    health = run.load.health
    lags = np.array([one.sent_s - one.ready_s for one in run.outcomes])
    loop_lags = np.concatenate([one.loop_lags_s for one in health]) if health else np.empty(0)
    cpu_s = sum(one.cpu_s for one in health)
    return {
        "lag": milliseconds(_p99(lags)),
        "loop": milliseconds(_p99(loop_lags)),
        "cpu": max((one.cpu_share for one in health), default=0.0),
        "per_token": cpu_s / max(run.figures.chunks or run.figures.completed, 1) * 1e6,
    }


def verdict_text(run: BenchRun, language: Language) -> str:
    """The verdict; its reason is in English, as errors are."""
    return f"{word(run.verdict.word, language)}: {run.verdict.reason}"


def failure_sentences(run: BenchRun) -> list[str]:
    """One sentence for each kind of failure."""
    return [group.sentence(len(run.outcomes)) for group in run.failures]


def milliseconds(seconds: float, digits: int = 1) -> str:
    """``12.3 ms``; a dash for what never was."""
    return "-" if math.isnan(seconds) else f"{seconds * 1e3:,.{digits}f} ms"


def definitions(names: Sequence[str], language: Language) -> list[str]:
    """What latencies mean, a line each."""
    from simserve.bench.report.metrics import NAMES

    return [f"{NAMES[name]} = {word(name, language)}" for name in names]


def _p99(values: np.typing.NDArray[np.float64]) -> float:
    return float(np.percentile(values, 99)) if len(values) else math.nan


def _requests(run: BenchRun, language: Language) -> str:
    parts = [word("succeeded", language, count=run.figures.completed)]
    if run.figures.failed:
        parts.append(word("failed", language, count=run.figures.failed))
    return ", ".join(parts)


def _tokens(run: BenchRun, language: Language) -> str:
    figures = run.figures
    text = word("in_out", language, input=figures.total_input_tokens, output=figures.total_output_tokens)
    return f"{text} ({word('estimated', language)})" if run.is_estimated else text


def _throughput(run: BenchRun, language: Language) -> str:
    figures = run.figures
    if run.plan.backend.is_pooling:
        rate = figures.total_sequences / figures.duration_s if figures.duration_s else 0.0
        total = figures.total_token_throughput
        return word("sequences", language, requests=figures.request_throughput, sequences=rate, total=total)
    return word(
        "per_second",
        language,
        requests=figures.request_throughput,
        output=figures.output_throughput,
        total=figures.total_token_throughput,
    )
