"""LoRA adapters of a live engine: which are in use now, as ``GET /status`` and ``/metrics`` tell it."""

from __future__ import annotations

from collections.abc import Mapping

from simserve.scheduling import Scheduler
from simserve.scheduling.adapters import AdapterVllmV1
from simserve.simulation import Replica
from simserve.simulation.features.adapter_replica import AdapterReplica

Names = Mapping[int, str]
"""Of adapters, by their numbers."""


def lora_status(scheduler: Scheduler, replica: Replica, names: Names) -> dict[str, object]:
    """More of an engine's status, under ``lora``; nothing for one without adapters."""
    if not isinstance(scheduler, AdapterVllmV1) or not isinstance(replica, AdapterReplica):
        return {}
    return {
        "lora": {
            "max_loras": scheduler.lines.most,
            "running_adapters": [names[adapter] for adapter in scheduler.running_adapters],
            "waiting_adapters": [names[adapter] for adapter in scheduler.lines.adapters],
            "loads": replica.loads,
            "load_s": replica.load_s,
        }
    }
