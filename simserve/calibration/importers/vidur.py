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


SMALL_OPERATORS = {
    "input_layernorm_ms": ("norm", lambda hidden, mlp, q, kv: 4 * hidden),
    "attn_rope_ms": ("rope", lambda hidden, mlp, q, kv: 2 * (q + kv)),
    "mlp_act_ms": ("activation", lambda hidden, mlp, q, kv: 3 * mlp),
}
"""Our name, and elements that one token moves by sizes of the model."""
BYTES = 2


def read_small_operators(file: Path) -> ElementwisePoints:
    """Norms, rotary embedding and activation on one device, in half precision."""
    sizes = ("n_embd", "n_expanded_embd", "n_head", "n_kv_head")
    table = read_columns(file, ("num_tokens", "num_tensor_parallel_workers", *sizes, *SMALL_OPERATORS))
    alone = table["num_tensor_parallel_workers"] == 1
    hidden, mlp, heads, kv_heads = (table[size][alone] for size in sizes)
    head_dim = hidden / heads
    found = None
    for column, (name, elements) in SMALL_OPERATORS.items():
        moved = BYTES * table["num_tokens"][alone] * elements(hidden, mlp, heads * head_dim, kv_heads * head_dim)
        points = ElementwisePoints(table[column][alone] * MS, np.full(moved.shape, name), moved)
        found = points if found is None else found.joined(points)
    assert found is not None
    return found
