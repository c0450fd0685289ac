"""Tables of casys-kaist/LLMServingSim: layers of Llama-3.1-8B by tokens, and attention of mixed batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from simserve.calibration.importers.table import number, read_columns, read_rows
from simserve.calibration.points import ElementwisePoints, Floats, GemmPoints, MixedPoints
from simserve.errors import HardwareError

US, NS = 1e-6, 1e-9
HIDDEN, HEADS, KV_HEADS, HEAD_DIM, MLP, VOCABULARY = 4096, 32, 8, 128, 14336, 128256
"""Of Llama-3.1-8B, the one model these tables were measured with."""
BYTES = 2

SMALL_OPERATORS = {
    "layernorm": ("norm", 4 * HIDDEN * BYTES),
    "rotary_emb": ("rope", 2 * (HEADS + KV_HEADS) * HEAD_DIM * BYTES),
    "act_fn": ("activation", 3 * MLP * BYTES),
    "embedding": ("embedding", 2 * HIDDEN * BYTES),
    "sampler": ("sampler", VOCABULARY * 4),
}
"""What the tables call them: our name, and bytes that one token moves."""


def read_layers_us(file: Path) -> tuple[GemmPoints, ElementwisePoints]:
    """``layer,tokens,time_us`` (or ``sequences``): matrix products and small operators of vLLM 0.19 on one device."""
    shapes = {
        "qkv_proj": ((HEADS + 2 * KV_HEADS) * HEAD_DIM, HIDDEN),
        "o_proj": (HIDDEN, HEADS * HEAD_DIM),
        "gate_up_proj": (2 * MLP, HIDDEN),
        "down_proj": (HIDDEN, MLP),
        "lm_head": (VOCABULARY, HIDDEN),
    }
    gemms: list[tuple[float, float, float, float]] = []
    small: list[tuple[str, float, float]] = []
    for line, row in read_rows(file, ("layer", "time_us")):
        count = "tokens" if "tokens" in row else "sequences"
        rows = number(file, line, count, row.get(count, ""))
        seconds = number(file, line, "time_us", row["time_us"]) * US
        layer = row["layer"]
        if layer in shapes:
            gemms.append((seconds, rows, *shapes[layer]))
        elif layer in SMALL_OPERATORS:
            name, token_bytes = SMALL_OPERATORS[layer]
            small.append((name, rows * token_bytes, seconds))
        elif layer != "final_layernorm":
            raise HardwareError(f"{file}, line {line}: layer '{layer}' is not one of Llama-3.1-8B's")
    columns = np.array(gemms).reshape(-1, 4).T
    names, moved, seconds_of = ([entry[i] for entry in small] for i in range(3))
    return GemmPoints(*columns), ElementwisePoints(np.array(seconds_of), np.array(names), np.array(moved))


def read_layers_ns(file: Path, tensor_parallel_size: int, leave_out: tuple[str, ...] = ()) -> GemmPoints:
    """One column per layer in nanoseconds, one row per number of tokens; empty cells were not measured.

    ``leave_out`` are layers not to be trusted. The small operators of these tables are eager PyTorch, and left out too.
    """
    tp = tensor_parallel_size
    shapes = {
        "q_proj": (HEADS * HEAD_DIM // tp, HIDDEN),
        "k_proj": (KV_HEADS * HEAD_DIM // tp, HIDDEN),
        "o_proj": (HIDDEN, HEADS * HEAD_DIM // tp),
        "gate_proj": (MLP // tp, HIDDEN),
        "down_proj": (HIDDEN, MLP // tp),
        "lm_head": (VOCABULARY // tp, HIDDEN),
    }
    points: list[tuple[float, float, float, float]] = []
    for line, row in read_rows(file, ("tokens", "o_proj", "gate_proj", "down_proj", "lm_head")):
        tokens = number(file, line, "tokens", row["tokens"])
        for layer, shape in shapes.items():
            if row.get(layer) and layer not in leave_out:
                points.append((number(file, line, f"{layer}_ns", row[layer]) * NS, tokens, *shape))
    return GemmPoints(*np.array(points).T)


def read_attention_ns(file: Path) -> MixedPoints:
    """Attention of JAX: a prefill chunk on cached tokens, or decodes of one context each, never both; medians."""
    numbers = ("prefill_chunk_size", "kv_cache_size", "batch_size", "p50_ns")
    table = read_columns(file, numbers)
    chunk, cached, sequences = (table[name] for name in numbers[:3])
    prefill = chunk > 0
    if (sequences[prefill] != 1).any():
        raise HardwareError(f"{file}: holds prefill chunks of several sequences at once, which cannot be used here")
    decodes, context = np.where(prefill, 0.0, sequences), np.where(prefill, 0.0, cached)
    return MixedPoints(table["p50_ns"] * NS, chunk, np.where(prefill, cached, 0.0), decodes, context)


def read_mixed_attention(file: Path) -> MixedPoints:
    """Attention of vLLM 0.19: one prefill chunk on cached tokens beside decodes of one context each."""
    numbers = ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us")
    table = read_columns(file, numbers)
    order: list[Floats] = [table[name] for name in numbers[:4]]
    return MixedPoints(table["time_us"] * US, *order)
