"""What microsoft/vidur measured of the vLLM of 2023-2024 on A100s: small operators, and host time per engine step."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from simserve.calibration.importers.table import read_columns
from simserve.calibration.points import ElementwisePoints, Floats

MS = 1e-3
PARTS = ("schedule_median", "sampler_e2e_median", "prepare_inputs_e2e_median", "process_model_outputs_median")


def read_host_steps(file: Path) -> tuple[Floats, Floats]:
    """(running requests, host seconds) of each measured step on one device; what model execution hides is left out."""
    table = read_columns(file, ("batch_size", "tensor_parallel_degree", *PARTS))
    alone = table["tensor_parallel_degree"] == 1
    seconds = np.sum([table[part] for part in PARTS], axis=0) * MS
    return table["batch_size"][alone], seconds[alone]


BYTES = 2
SMALL_OPERATORS = {"input_layernorm_ms": "norm", "attn_rope_ms": "rope", "mlp_act_ms": "activation"}
"""What the table calls them, and our name."""


def read_small_operators(file: Path) -> ElementwisePoints:
    """Norms, rotary embedding and activation on one device, in half precision."""
    sizes = ("n_embd", "n_expanded_embd", "n_head", "n_kv_head")
    table = read_columns(file, ("num_tokens", "num_tensor_parallel_workers", *sizes, *SMALL_OPERATORS))
    alone = table["num_tensor_parallel_workers"] == 1
    hidden, mlp, heads, kv_heads = (table[size][alone] for size in sizes)
    elements = {"norm": 4 * hidden, "rope": 2 * hidden * (1 + kv_heads / heads), "activation": 3 * mlp}
    tokens = table["num_tokens"][alone]
    moved = {name: BYTES * tokens * each for name, each in elements.items()}
    return ElementwisePoints(
        np.concatenate([table[column][alone] * MS for column in SMALL_OPERATORS]),
        np.repeat(list(SMALL_OPERATORS.values()), len(tokens)),
        np.concatenate([moved[name] for name in SMALL_OPERATORS.values()]),
    )
