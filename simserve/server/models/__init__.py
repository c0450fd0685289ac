"""Which models can be asked for and which of them are in memory.

``available`` reads the settings, ``loadable`` is one model of them, ``pool`` loads and unloads, ``adapters`` are LoRA.
"""

from __future__ import annotations

from simserve.server.models.adapters import Adapter, LoadAdapter, UnloadAdapter
from simserve.server.models.available import available_models
from simserve.server.models.base import Models
from simserve.server.models.loadable import Loadable
from simserve.server.models.make import pool_of
from simserve.server.models.pool import ModelPool, PoolLimits

__all__ = [
    "Adapter",
    "LoadAdapter",
    "Loadable",
    "ModelPool",
    "Models",
    "PoolLimits",
    "UnloadAdapter",
    "available_models",
    "pool_of",
]
