"""Continuous batching: which requests a step works on, and where their KV lives. No clock, no SimPy, no torch."""

from __future__ import annotations

from simserve.scheduling.plan import PrefillChunk, StepPlan
from simserve.scheduling.request import Request, Status
from simserve.scheduling.scheduler import Scheduler, SchedulerLimits
from simserve.scheduling.vllm_v1 import VllmV1, VllmV1Priority

POLICIES: dict[str, type[Scheduler]] = {"vllm-v1": VllmV1, "vllm-v1-priority": VllmV1Priority}
"""Scheduling policies by the name that ``--policy`` takes."""

__all__ = ["POLICIES", "PrefillChunk", "Request", "Scheduler", "SchedulerLimits", "Status", "StepPlan"]
