"""Tables of ai-dynamo/aiconfigurator: matrix products, attention of one layer and all-reduce, in milliseconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from simserve.calibration.importers.table import read_columns
from simserve.calibration.points import AllReducePoints, AttentionPoints, GemmPoints

MS = 1e-3
HALF_PRECISION_BYTES = 2


def read_gemms(file: Path) -> GemmPoints:
    """Matrix products in bfloat16."""
    table = read_columns(file, ("m", "n", "k", "latency_ms"), only={"gemm_dtype": "bfloat16"}, constant=("device",))
    return GemmPoints(table["latency_ms"] * MS, table["m"], table["n"], table["k"])


def read_attention(file: Path) -> AttentionPoints:
    """Prefill (``context``) or decode (``generation``) attention; a decode's context is ``isl`` + ``step`` tokens."""
    numbers = ("batch_size", "isl", "step", "num_heads", "num_key_value_heads", "latency_ms")
    only = {"head_dim": "128", "attn_dtype": "bfloat16", "kv_cache_dtype": "bfloat16"}
    table = read_columns(file, numbers, only=only, constant=("device",))
    return AttentionPoints(
        table["latency_ms"] * MS,
        table["num_heads"],
        table["num_key_value_heads"],
        table["batch_size"],
        table["isl"] + table["step"],
    )


def read_all_reduce(file: Path) -> AllReducePoints:
    """vLLM's all-reduce inside a captured graph; ``message_size`` counts elements of two bytes."""
    numbers = ("num_gpus", "message_size", "latency_ms")
    only = {"op_name": "all_reduce", "allreduce_dtype": "bfloat16"}
    table = read_columns(file, numbers, only=only, constant=("device",))
    in_graph = _in_graph(file)
    points = AllReducePoints(table["latency_ms"] * MS, table["num_gpus"], table["message_size"] * HALF_PRECISION_BYTES)
    return points.where(in_graph)


def _in_graph(file: Path) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    from simserve.calibration.importers.table import read_rows

    return np.array([row["backend"] == "vllm_graph" for _, row in read_rows(file, ("backend",))])
