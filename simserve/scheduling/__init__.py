"""Continuous batching: which requests a step works on, and where their KV lives. No clock, no SimPy, no torch."""

from __future__ import annotations

from simserve.scheduling.numbered_kv_cache import NumberedKVCache
from simserve.scheduling.orca import Orca
from simserve.scheduling.pipelined import Cohort, Pipelined, PipelinedPriority
from simserve.scheduling.plan import PrefillChunk, Stall, StepPlan
from simserve.scheduling.request import AdapterRequest, Request, Status
from simserve.scheduling.sarathi import Sarathi
from simserve.scheduling.scheduler import Options, Scheduler, SchedulerLimits
from simserve.scheduling.sglang import SGLang
from simserve.scheduling.static import Static
from simserve.scheduling.vllm_v0 import VllmV0
from simserve.scheduling.vllm_v1 import VllmV1, VllmV1Priority

POLICIES: dict[str, type[Scheduler]] = {
    "vllm-v1": VllmV1,
    "vllm-v0": VllmV0,
    "sglang": SGLang,
    "sarathi": Sarathi,
    "orca": Orca,
    "static": Static,
}
"""Scheduling policies by the name that ``--policy`` takes."""

__all__ = [
    "POLICIES", "AdapterRequest", "Cohort", "NumberedKVCache", "Options", "Pipelined", "PipelinedPriority",
    "PrefillChunk", "Request", "Scheduler", "SchedulerLimits", "Stall", "Status", "StepPlan", "VllmV1",
    "VllmV1Priority",
]  # fmt: skip
