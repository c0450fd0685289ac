"""HTTP requests by route, under the names that vLLM's server has from prometheus-fastapi-instrumentator."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from aiohttp import web
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from simserve.server.errors import Handler, Middleware
from simserve.server.metrics.histogram import Histogram

DURATION_S = (0.1, 0.5, 1.0)
DURATION_FINE_S = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 7.5, 10.0, 30.0, 60.0,
)  # fmt: skip

NOT_COUNTED = frozenset({"/metrics", "/health", "/load", "/ping", "/version", "/server_info"})
GENERATING = frozenset({
    "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses",
    "/score", "/v1/score", "/rerank", "/v1/rerank", "/v2/rerank",
})  # fmt: skip
"""What ``GET /load`` counts."""

NOWHERE = "none"
"""The handler of a path that there is none for: such paths are made up by clients, and must not become labels."""


class HttpCounts(Collector):
    """What was counted by one process or, added up, by several; ``generating`` are being answered right now."""

    def __init__(self) -> None:
        self.generating = 0
        self._requests: dict[tuple[str, str, str], int] = defaultdict(int)
        self._durations_s: dict[tuple[str, str], Histogram] = defaultdict(lambda: Histogram(DURATION_S))
        self._all_durations_s = Histogram(DURATION_FINE_S)

    def note(self, path: str, method: str, status: str, duration_s: float) -> None:
        """A request was answered, with a status such as ``2xx``."""
        self._requests[path, method, status] += 1
        self._durations_s[path, method].add(duration_s)
        self._all_durations_s.add(duration_s)

    def include(self, other: HttpCounts) -> None:
        """Add what another process has counted."""
        self.generating += other.generating
        for key, count in other._requests.items():
            self._requests[key] += count
        for route, durations in other._durations_s.items():
            self._durations_s[route].include(durations)
        self._all_durations_s.include(other._all_durations_s)

    def body(self) -> dict[str, Any]:
        """All of it as JSON knows it."""
        return {
            "generating": self.generating,
            "requests": [[*key, count] for key, count in self._requests.items()],
            "durations": [[*route, durations.body()] for route, durations in self._durations_s.items()],
            "all_durations": self._all_durations_s.body(),
        }

    @classmethod
    def from_body(cls, body: dict[str, Any]) -> HttpCounts:
        """The same again."""
        counts = cls()
        counts.generating = body["generating"]
        for path, method, status, count in body["requests"]:
            counts._requests[path, method, status] = count
        for path, method, durations in body["durations"]:
            counts._durations_s[path, method] = Histogram(DURATION_S, *durations)
        counts._all_durations_s = Histogram(DURATION_FINE_S, *body["all_durations"])
        return counts

    def collect(self) -> Iterable[Metric]:
        counted = CounterMetricFamily("http_requests", "HTTP requests.", labels=("handler", "method", "status"))
        for key, count in self._requests.items():
            counted.add_metric(key, count)
        yield counted
        durations = HistogramMetricFamily(
            "http_request_duration_seconds", "Duration of HTTP requests.", labels=("handler", "method")
        )
        for route, histogram in self._durations_s.items():
            durations.add_metric(route, histogram.cumulative(), histogram.sum)
        yield durations
        fine = HistogramMetricFamily("http_request_duration_highr_seconds", "The same, finer, of all together.")
        fine.add_metric([], self._all_durations_s.cumulative(), self._all_durations_s.sum)
        yield fine
        yield GaugeMetricFamily("simserve:http_requests_generating", "What GET /load says.", self.generating)


class HttpMetrics:
    """Counts by wall time what this process answers; give :meth:`middleware` to the application, outside all others."""

    def __init__(self) -> None:
        self.counts = HttpCounts()

    async def of_this_process(self) -> HttpCounts:
        """What was counted here."""
        return self.counts

    @property
    def middleware(self) -> Middleware:
        """Times each request and counts it by route, method and kind of status."""

        @web.middleware
        async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
            resource = request.match_info.route.resource
            path = resource.canonical if resource is not None else NOWHERE
            if path in NOT_COUNTED:
                return await handler(request)
            generates = path in GENERATING
            self.counts.generating += generates
            start_s = time.perf_counter()
            status = "4xx"  # as of a client that hung up
            try:
                response = await handler(request)
                status = f"{response.status // 100}xx"
                return response
            finally:
                self.counts.generating -= generates
                self.counts.note(path, request.method, status, time.perf_counter() - start_s)

        return count
