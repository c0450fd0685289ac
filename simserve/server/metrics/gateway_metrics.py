"""What stands before the replicas of a cluster, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from simserve.engines.controls import HasReplicas
from simserve.server.metrics.engine_metrics import EngineMetrics

OUTCOMES = (("throttled", "throttled_requests"), ("failed", "failed_requests"), ("retried", "retries"))


def gateway_metrics(engines: Sequence[EngineMetrics]) -> Iterator[Metric]:
    """Of each cluster among ``engines``; nothing if there is none."""
    clusters = {metrics.engine: metrics.model_name for metrics in engines if isinstance(metrics.engine, HasReplicas)}
    if not clusters:
        return
    waiting = GaugeMetricFamily(
        "simserve:gateway_requests_waiting", "Requests that no replica has yet.", labels=("model_name",)
    )
    on_a_link = GaugeMetricFamily(
        "simserve:gateway_requests_on_a_link", "Requests whose KV is on a link.", labels=("model_name",)
    )
    outcomes = CounterMetricFamily(
        "simserve:gateway_requests",
        "Requests that were refused for a limit, were lost with their replica, or went on elsewhere.",
        labels=("model_name", "outcome"),
    )
    for engine, model_name in clusters.items():
        gateway = cast(dict[str, float], engine.status().extra["gateway"])
        waiting.add_metric([model_name], gateway["waiting_requests"])
        on_a_link.add_metric([model_name], gateway["requests_on_a_link"])
        for outcome, key in OUTCOMES:
            outcomes.add_metric([model_name, outcome], gateway[key])
    yield from (waiting, on_a_link, outcomes)
