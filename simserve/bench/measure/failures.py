"""Failures of a run, like with like: how many of each, what was said, and what to do about it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from simserve.bench.measure.outcome import Failure, Outcome

REFUSED = (429, 503)
"""Statuses by which a server says that it has too much to do."""

ADVICE = {
    "connection refused": "start the server, or give its address with --base-url",
    "connection closed before the answer was complete": "look into the server's log",
    "stream cut in the middle": "look into the server's log",
    "no complete answer within --request-timeout": "look into the server's log, or raise --request-timeout",
    "not HTTP/1.1": "check --base-url: something else than a web server listens there",
    "error inside a 200 answer": "look into the server's log",
    "malformed answer": "check that --backend fits the server",
    "stream without an end": "check that --backend fits the server",
    "empty answer": "check that --backend fits the server",
}

STATUS_ADVICE = {
    400: "the server does not take this request; --extra-body and the lengths are the first to check",
    401: "set OPENAI_API_KEY, or give --header Authorization=...",
    403: "the key may not use this model",
    404: "check --model, and --endpoint: {backend} servers listen at {path}",
    413: "the prompts are too large for the server",
    422: "the server does not take this request; check --backend",
    429: "lower --request-rate or --max-concurrency{retry}",
    503: "lower --request-rate or --max-concurrency{retry}",
}


@dataclass(frozen=True)
class FailureGroup:
    """``count`` requests that failed in one way; ``example`` is what the first of them was told."""

    kind: str
    count: int
    example: str
    advice: str

    def sentence(self, of: int) -> str:
        """The group in one sentence."""
        said = f" ({self.example})" if self.example else ""
        return f"{self.count:,} of {of:,} requests: {self.kind}{said}" + (f"; {self.advice}" if self.advice else "")


def group_failures(outcomes: Sequence[Outcome], backend: str, path: str) -> list[FailureGroup]:
    """Failures by kind, the most frequent first."""
    groups: dict[str, list[Failure]] = defaultdict(list)
    for one in outcomes:
        if one.failure is not None:
            groups[one.failure.kind].append(one.failure)
    found = [
        FailureGroup(kind, len(failures), failures[0].message, _advice(failures, backend, path))
        for kind, failures in groups.items()
    ]
    return sorted(found, key=lambda group: -group.count)


def refused_requests(outcomes: Sequence[Outcome]) -> int:
    """Requests that the server declined because it had too much to do."""
    return sum(one.failure is not None and one.failure.status in REFUSED for one in outcomes)


def _advice(failures: Sequence[Failure], backend: str, path: str) -> str:
    first = failures[0]
    if first.status is None:
        return ADVICE.get(first.kind, "")
    waits = [failure.retry_after_s for failure in failures if failure.retry_after_s is not None]
    retry = f" (the server asks to come back after {max(waits):g} s)" if waits else ""
    advice = STATUS_ADVICE.get(first.status, "look into the server's log" if first.status >= 500 else "")
    return advice.format(backend=backend, path=path, retry=retry)
