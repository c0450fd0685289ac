"""``GET /metrics``: what the engines did, under vLLM's names, so that dashboards made for vLLM draw it."""

from __future__ import annotations

from simserve.server.metrics.engine_metrics import EngineMetrics
from simserve.server.metrics.exposition import MetricsPage
from simserve.server.metrics.http_metrics import HttpMetrics

__all__ = ["EngineMetrics", "HttpMetrics", "MetricsPage"]
