"""The real engine: a small transformer runtime on torch, driven by the scheduler that the simulation has.

``engine`` is what the server sees, ``core`` one step of it, ``runner`` the model's part of a step. ``build`` puts a
``transformer`` together from ``weights``; ``attention`` reads K and V from pages that the scheduler hands out;
``sampler`` chooses tokens and ``text`` turns them into words. ``generate`` is all of it in one call.
"""

from __future__ import annotations

from simserve.engines.torch.core import EngineCore, Output, StepRecord
from simserve.engines.torch.engine import TorchEngine
from simserve.engines.torch.generate import Generation, generate
from simserve.engines.torch.runner import ModelRunner, hand_made_plan, load_runner
from simserve.engines.torch.setup import default_device, load_core

__all__ = [
    "EngineCore", "Generation", "ModelRunner", "Output", "StepRecord", "TorchEngine", "default_device", "generate",
    "hand_made_plan", "load_core", "load_runner",
]  # fmt: skip
