"""A cluster's run as one object for JSON: the keys of any run, then groups, replicas and tenants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from simserve.metrics.bands import Bands
from simserve.metrics.bill import bill_keys, sum_of
from simserve.metrics.latency import tpot_s, ttft_s
from simserve.metrics.records import FINISHED
from simserve.metrics.result import NOT_LABELS, common_keys, tokens_of
from simserve.metrics.summary import Summary
from simserve.simulation.cluster.result import ClusterResult, MemberResult

Rows = list[dict[str, Any]]

PERCENT = 99.0
"""Of latencies in the rows of tenants."""


def cluster_object(result: ClusterResult, summary: Summary, bands: Bands) -> Mapping[str, Any]:
    """Everything known of a run on a cluster, ready for JSON; see :func:`simserve.metrics.result.result_object`."""
    totals = summary.totals
    return {
        **common_keys(summary, " + ".join(dict.fromkeys(each.model for each in result.descriptions)), bands),
        "workload": result.descriptions[0].workload,
        "router": result.router,
        "aborted": summary.aborted,
        "rejected": summary.rejected,
        "throttled": summary.throttled,
        "lost": summary.lost,
        "retries": int(result.places.retries.sum()),
        "moved_tokens": result.moved_tokens,
        "preemptions": totals.preemptions,
        "prefix_cache_hit_rate": summary.prefix_cache_hit_rate,
        "cached_tokens": totals.cached_tokens,
        "computed_prefill_tokens": totals.computed_prefill_tokens,
        "steps": totals.steps,
        **total_bill(result, summary),
        **result.figures,
        "bands": bands.basis,
        "groups": group_rows(result),
        "replicas": [replica_row(member) for member in result.members],
        "tenants": tenant_rows(result),
        "autoscaling": [asdict(decision) for decision in result.decisions],
    }


def total_bill(result: ClusterResult, summary: Summary) -> dict[str, float | None]:
    """Energy and money of all replicas, idle and starting ones included."""
    return bill_keys(sum_of(member.bill for member in result.members), summary.completed, tokens_of(summary))


def replica_row(member: MemberResult) -> dict[str, Any]:
    """One replica: what it did, and what energy and money that took."""
    row = {key: value for key, value in asdict(member).items() if key != "bill"}
    tokens = (member.input_tokens, member.output_tokens)
    return {**row, "busy_fraction": member.busy_fraction, **bill_keys(member.bill, member.finished, tokens)}


def group_rows(result: ClusterResult) -> Rows:
    """Each group: what its engines are, and what all of its replicas did together."""
    rows = []
    for name, description in zip(result.group_names, result.descriptions, strict=True):
        members = [member for member in result.members if member.group == name]
        labels = {key: value for key, value in asdict(description).items() if key not in (*NOT_LABELS, "workload")}
        alive_s = sum(member.alive_s for member in members)
        rows.append(
            {
                "name": name,
                "replicas": len(members) // description.data_parallel_size,
                "finished": sum(member.finished for member in members),
                "output_tokens": sum(member.output_tokens for member in members),
                "busy_fraction": sum(member.busy_s for member in members) / alive_s if alive_s else 0.0,
                "failures": sum(member.failures for member in members),
                **labels,
                **bill_keys(
                    sum_of(member.bill for member in members),
                    sum(member.finished for member in members),
                    (sum(member.input_tokens for member in members), sum(member.output_tokens for member in members)),
                ),
            }
        )
    return rows


def tenant_rows(result: ClusterResult) -> Rows:
    """Each tenant: its requests, and which of them were good by its objectives; latencies in ms."""
    records, rows = result.records, []
    ttft, tpot = ttft_s(records), tpot_s(records)
    for index, tenant in enumerate(result.tenants):
        own = result.places.tenant == index
        finished = own & (records.status == FINISHED)
        good = finished.copy()
        if tenant.ttft_slo_s is not None:
            good &= ttft <= tenant.ttft_slo_s
        if tenant.tpot_slo_s is not None:
            good &= ~(tpot > tenant.tpot_slo_s)
        rows.append(
            {
                "name": tenant.name,
                "requests": int(own.sum()),
                "finished": int(finished.sum()),
                "output_tokens": int(records.output_tokens[finished].sum()),
                "mean_ttft_ms": _milliseconds(ttft[finished], None),
                "p99_ttft_ms": _milliseconds(ttft[finished], PERCENT),
                "good_fraction": float(good.sum() / own.sum()) if own.any() else None,
            }
        )
    return rows


def _milliseconds(values_s: np.ndarray, percent: float | None) -> float | None:
    if not len(values_s):
        return None
    return 1000.0 * float(values_s.mean() if percent is None else np.percentile(values_s, percent))
