"""Service level objectives: limits on latencies, as ``ttft:p99=2s tpot:p90=50ms``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from simserve.errors import ConfigError
from simserve.metrics.result import Result, latency_key, percentile_name

METRICS = {"ttft": "TTFT", "tpot": "TPOT", "itl": "ITL", "e2e": "E2E", "e2el": "E2E"}
UNITS_MS = {"": 1.0, "ms": 1.0, "s": 1000.0}
DEFAULT_PERCENT = 99.0
"""Of a limit that does not say which statistic it is for."""

TERM = re.compile(
    r"(?P<metric>\w+):(?:(?P<statistic>mean|median|p(?P<percent>[\d.]+))=)?(?P<limit>[\d.]+)(?P<unit>m?s)?"
)


@dataclass(frozen=True)
class Term:
    """One limit: ``statistic`` (mean, median, p99, ...) of ``metric`` is at most ``limit_ms``."""

    metric: str
    statistic: str
    limit_ms: float

    def __str__(self) -> str:
        limit = f"{self.limit_ms / 1000:g}s" if self.limit_ms >= 1000 else f"{self.limit_ms:g}ms"
        return f"{self.metric.lower()}:{self.statistic}={limit}"

    @property
    def key(self) -> str:
        """Where it stands in a result."""
        return latency_key(self.statistic, self.metric)

    @property
    def percent(self) -> float | None:
        """The percentile that a run must compute for it; None for mean and median, which are always there."""
        return float(self.statistic[1:]) if self.statistic.startswith("p") else None

    def share(self, result: Mapping[str, object]) -> float:
        """What ``result`` has as a fraction of the limit: above 1 misses it; a latency that no request has is 0."""
        value = result[self.key]
        return 0.0 if value is None else float(value) / self.limit_ms  # type: ignore[arg-type]


@dataclass(frozen=True)
class Slo:
    """Limits that all have to hold, for requests that all have to be served."""

    terms: tuple[Term, ...]

    def __str__(self) -> str:
        return " ".join(map(str, self.terms))

    @property
    def percentiles(self) -> list[float]:
        return sorted({percent for term in self.terms if (percent := term.percent) is not None})

    def missed(self, result: Result) -> list[Term]:
        """The terms that ``result`` does not meet."""
        return [term for term in self.terms if term.share(result) > 1.0]

    def met(self, result: Result) -> bool:
        """Whether every term holds and no request was refused or aborted."""
        return not result["failed"] and not self.missed(result)

    def with_percentiles(self, percentiles: Iterable[float]) -> tuple[float, ...]:
        """``percentiles`` and those that the terms need, ascending."""
        return tuple(sorted({*percentiles, *self.percentiles}))


def parse_slo(words: str | Sequence[str]) -> Slo:
    """Terms such as ``ttft:p99=2s``, ``tpot:mean=50`` (milliseconds) or ``e2e:5s`` (its p99), in one text or several.

    Raises :class:`ConfigError` for a term that is not one, a limit not above 0, or no term at all.
    """
    texts = words.replace(",", " ").split() if isinstance(words, str) else [part for w in words for part in w.split()]
    if not texts:
        raise ConfigError("an SLO has at least one limit, such as ttft:p99=2s")
    terms = tuple(map(_term, texts))
    names = [(term.metric, term.statistic) for term in terms]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"the SLO limits {name[1]} of {name[0]} twice; say it once")
    return Slo(terms)


def _term(text: str) -> Term:
    found = TERM.fullmatch(text.lower())
    if found is None or found["metric"] not in METRICS:
        raise ConfigError(
            f"'{text}' is no SLO; write METRIC:STATISTIC=LIMIT, such as ttft:p99=2s or tpot:mean=50ms, with METRIC one"
            f" of {', '.join(list(METRICS)[:4])} and STATISTIC mean, median or a percentile"
        )
    percent = DEFAULT_PERCENT if found["percent"] is None else _number(found["percent"], text)
    if percent > 100:
        raise ConfigError(f"'{text}' asks for percentile {percent:g}; the last one is 100")
    limit_ms = _number(found["limit"], text) * UNITS_MS[found["unit"] or ""]
    if not limit_ms > 0:
        raise ConfigError(f"'{text}' sets a limit of 0; give more")
    named = found["statistic"] in ("mean", "median")
    return Term(METRICS[found["metric"]], found["statistic"] if named else percentile_name(percent), limit_ms)


def _number(text: str, term: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"'{text}' in the SLO '{term}' is not a number") from None
