"""What a language model is to SimServe: its shapes, from a Hugging Face ``config.json``; never its weights.

``catalog`` finds a model by name or path, ``huggingface`` reads its config, ``spec`` holds what was read and what
follows from it (parameters, bytes, KV cache), ``operators`` the arithmetic of its matrix products and attention,
``quantization`` how checkpoints store their matrices in fewer bits, ``stages`` what a pipeline stage has of a model,
``experts`` how experts are split over devices.
"""

from __future__ import annotations

from simserve.models.catalog import list_models, load_model
from simserve.models.experts import SplitExperts, with_experts_over
from simserve.models.huggingface import ARCHITECTURES, parse_config
from simserve.models.operators import Attention, Gemm
from simserve.models.quantization import METHODS, Quantization
from simserve.models.spec import DTYPE_BYTES, ModelSpec, MoeSpec, dtype_bytes_of
from simserve.models.stages import StageModel, split_into_stages, stage_layers

__all__ = [
    "ARCHITECTURES",
    "DTYPE_BYTES",
    "METHODS",
    "Attention",
    "Gemm",
    "ModelSpec",
    "MoeSpec",
    "Quantization",
    "SplitExperts",
    "StageModel",
    "dtype_bytes_of",
    "list_models",
    "load_model",
    "parse_config",
    "split_into_stages",
    "stage_layers",
    "with_experts_over",
]
