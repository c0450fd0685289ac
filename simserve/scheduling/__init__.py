"""Continuous batching: which requests a step works on, and where their KV lives. No clock, no SimPy, no torch."""

from __future__ import annotations

from simserve.scheduling.plan import PrefillChunk, StepPlan
from simserve.scheduling.request import Request, Status
from simserve.scheduling.vllm_v1 import Scheduler, SchedulerLimits

POLICIES: dict[str, type[Scheduler]] = {"vllm-v1": Scheduler}
"""Scheduling policies by the name that ``--policy`` takes."""

__all__ = ["POLICIES", "PrefillChunk", "Request", "Scheduler", "SchedulerLimits", "Status", "StepPlan"]
