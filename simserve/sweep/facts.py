"""Facts of a run wherever its result has them: on top, or in the only group of a cluster."""

from __future__ import annotations

from typing import Any

from simserve.metrics.result import Result


def flat(result: Result) -> Result:
    """``result`` without tables; what all replicas share, and the most that one of them used, stands on top."""
    whole: dict[str, Any] = dict(result)
    groups, replicas = whole.get("groups", []), whole.get("replicas", [])
    plain = _plain(whole)
    if len(groups) == 1:
        plain = {**_plain(groups[0]), **plain}
    if isinstance(replicas, list) and replicas:
        plain["kv_usage"] = max(one["peak_kv_blocks"] / one["kv_blocks"] for one in replicas)
        plain["busy_fraction"] = max(one["busy_fraction"] for one in replicas)
    return plain


def _plain(group: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if not isinstance(value, (list, dict))}
