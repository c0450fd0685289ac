"""``GET /metrics``: what the engines did, under vLLM's names, so that dashboards made for vLLM draw it."""

from __future__ import annotations

from simserve.server.metrics.engine_metrics import EngineMetrics
from simserve.server.metrics.exposition import metrics_page
from simserve.server.metrics.http_metrics import HttpCounts, HttpMetrics

__all__ = ["EngineMetrics", "HttpCounts", "HttpMetrics", "metrics_page"]
