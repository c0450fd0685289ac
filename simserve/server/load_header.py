"""ORCA's load report, by which balancers such as Envoy send requests to where there is room: a header of the answer.

A client asks for it with ``endpoint-load-metrics-format: TEXT`` or ``JSON``; names and form are vLLM's. See
https://github.com/cncf/xds/blob/main/xds/data/orca/v3/orca_load_report.proto.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import orjson

from simserve.engines.base import EngineStatus

ASKED_IN = "endpoint-load-metrics-format"
TOLD_IN = "endpoint-load-metrics"


def load_of(now: EngineStatus) -> dict[str, float]:
    """What is told of an engine."""
    usage = now.kv_blocks_used / now.kv_blocks_total if now.kv_blocks_total else 0.0
    return {"kv_cache_usage_perc": usage, "num_requests_waiting": float(now.waiting_requests)}


async def load_header(
    asked: Mapping[str, str], load: Callable[[], Awaitable[Mapping[str, float]]]
) -> Mapping[str, str]:
    """The header that the headers ``asked`` for, if any did; a form that is not known is none, as in vLLM."""
    if ASKED_IN not in asked:
        return {}
    form = asked[ASKED_IN].strip().upper()
    if form == "TEXT":
        told = ", ".join(f"named_metrics.{name}={value}" for name, value in (await load()).items())
    elif form == "JSON":
        told = orjson.dumps({"named_metrics": dict(await load())}).decode()
    else:
        return {}
    return {TOLD_IN: f"{form} {told}"}
