"""How long one step takes, and how many KV blocks fit: operators -> calibrated rooflines -> step time.

``gemm``, ``decode_attention``, ``prefill_attention``, ``mixed_attention``, ``elementwise`` and ``communication``
are the operators, ``layers`` a model's matrix products, ``host`` what surrounds the device;
``step_timer`` puts them together, ``anchored`` ties their sum to whole steps where a profile has some (``factors``,
``operator_sums``, ``model_shape``), and ``memory`` plans the KV cache.
"""

from __future__ import annotations

from simserve.latency.anchored import AnchoredStepTimer, anchored_basis, anchored_uncertainty, anchors_for
from simserve.latency.host import VLLM_V0, VLLM_V1, HostCosts
from simserve.latency.memory import MemoryPlan, plan_memory
from simserve.latency.step_timer import StepTimer, StepWork, compiled_step_timer

__all__ = [
    "VLLM_V0",
    "VLLM_V1",
    "AnchoredStepTimer",
    "HostCosts",
    "MemoryPlan",
    "StepTimer",
    "StepWork",
    "anchored_basis",
    "anchored_uncertainty",
    "anchors_for",
    "compiled_step_timer",
    "plan_memory",
]
