"""The page that Prometheus reads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR, CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from simserve.engines.controls import Paced
from simserve.server.metrics.definitions import COUNTERS, DISTRIBUTIONS, GAUGES, Value
from simserve.server.metrics.engine_metrics import EngineMetrics
from simserve.server.metrics.gateway_metrics import gateway_metrics
from simserve.server.metrics.http_metrics import HttpCounts

LABELS = ("model_name", "engine")
"""vLLM numbers the engines behind one model; here these are the replicas of a cluster."""


async def metrics_page(accept: str, engines: Sequence[EngineMetrics], http: HttpCounts) -> tuple[bytes, str]:
    """All metrics of a server: of ``engines``, its HTTP traffic and this process.

    Returns the page and its content type, in the format that the ``Accept`` header prefers.
    """
    process = _Collected(await asyncio.to_thread(_process_metrics))
    registry = CollectorRegistry(auto_describe=False)
    for collector in (_EngineCollector(engines), http, PLATFORM_COLLECTOR, GC_COLLECTOR, process):
        registry.register(collector)
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def _process_metrics() -> list[Metric]:
    """Of this process. It lists all open files, which takes 10 ms and more where there are ten thousand."""
    return list(PROCESS_COLLECTOR.collect())


class _Collected(Collector):
    """What somebody has collected already."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


class _EngineCollector(Collector):
    """Turns plain numbers into metric families when somebody asks; until then they cost nothing but additions."""

    def __init__(self, engines: Sequence[EngineMetrics]) -> None:
        self._engines = engines

    def collect(self) -> Iterable[Metric]:
        engines = self._engines
        yield from _gauges(engines)
        for counter in COUNTERS:
            counted = CounterMetricFamily(counter.name, counter.help, labels=_labels(counter.label))
            for metrics in engines:
                for labels, value in _samples(metrics, counter.value(metrics), counter.label):
                    counted.add_metric(labels, value)
            yield counted
        for shape in DISTRIBUTIONS:
            family = HistogramMetricFamily(shape.name, shape.help, labels=_labels(None))
            for metrics in engines:
                histogram = shape.histogram(metrics)
                family.add_metric([metrics.model_name, metrics.number], histogram.cumulative(), histogram.sum)
            yield family
        yield from gateway_metrics(engines)
        yield _cache_config(engines)
        yield from _adapters(engines)
        yield _lateness(engines)


def _gauges(engines: Sequence[EngineMetrics]) -> Iterator[Metric]:
    status = [metrics.part.status() for metrics in engines]
    for gauge in GAUGES:
        family = GaugeMetricFamily(gauge.name, gauge.help, labels=_labels(gauge.label))
        for metrics, now in zip(engines, status, strict=True):
            for labels, value in _samples(metrics, gauge.value(metrics, now), gauge.label):
                family.add_metric(labels, value)
        yield family


def _cache_config(engines: Sequence[EngineMetrics]) -> Metric:
    """vLLM's way of saying what the KV cache is: a gauge of 1 whose labels are the settings."""
    family = GaugeMetricFamily(
        "vllm:cache_config_info", "Settings of the KV cache.", labels=(*LABELS, "block_size", "num_gpu_blocks")
    )
    for metrics in engines:
        about = metrics.part.describe()
        sizes = [str(about.get(name, "")) for name in ("block_size", "kv_blocks")]
        family.add_metric([metrics.model_name, metrics.number, *sizes], 1)
    return family


def _adapters(engines: Sequence[EngineMetrics]) -> Iterator[Metric]:
    """As vLLM says which LoRA adapters are in use: in the labels of a gauge that is the time by the wall's clock."""
    names = ("running_lora_adapters", "waiting_lora_adapters", "max_lora")
    family = GaugeMetricFamily("vllm:lora_requests_info", "Running stats on LoRA requests.", labels=(*LABELS, *names))
    for metrics in engines:
        lora = metrics.part.status().extra.get("lora")
        if isinstance(lora, Mapping):
            in_use = [",".join(lora[name]) for name in ("running_adapters", "waiting_adapters")]
            family.add_metric([metrics.model_name, metrics.number, *in_use, str(lora["max_loras"])], time.time())
    if family.samples:
        yield family


def _lateness(engines: Sequence[EngineMetrics]) -> Metric:
    family = HistogramMetricFamily(
        "simserve:token_lateness_seconds",
        "How long after it was due a token was handed over, on the wall's clock; 0 if before.",
        labels=_labels(None),
    )
    for metrics in {metrics.engine: metrics for metrics in reversed(engines)}.values():  # one clock, one lateness
        if isinstance(metrics.engine, Paced):
            late = metrics.engine.punctuality.late
            bounds = [(repr(bound_s), float(count)) for bound_s, count in late.cumulative()]
            where = [metrics.model_name, metrics.number]
            family.add_metric(where, [*bounds, ("+Inf", float(late.count))], late.sum_s)
    return family


def _labels(own: str | None) -> tuple[str, ...]:
    return LABELS if own is None else (*LABELS, own)


def _samples(metrics: EngineMetrics, value: Value, own: str | None) -> Iterator[tuple[list[str], float]]:
    where = [metrics.model_name, metrics.number]
    if isinstance(value, Mapping):
        yield from (([*where, of], float(one)) for of, one in value.items())
    elif own is None:
        yield where, float(value)
