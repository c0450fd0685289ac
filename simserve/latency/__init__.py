"""How long one step takes, and how many KV blocks fit: operators -> rooflines -> step time."""

from __future__ import annotations

from simserve.latency.memory import MemoryPlan, plan_memory
from simserve.latency.step_timer import StepTimer, StepWork

__all__ = ["MemoryPlan", "StepTimer", "StepWork", "plan_memory"]
