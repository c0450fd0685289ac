"""Tables of hudingyi688/aiconfigurator-npu: matrix products and fused attention on an Ascend 910B, in microseconds."""

from __future__ import annotations

from pathlib import Path

from simserve.calibration.importers.table import read_columns
from simserve.calibration.points import AttentionPoints, GemmPoints

US = 1e-6


def read_gemms(file: Path, quant: str) -> GemmPoints:
    """Matrix products; ``quant`` is the one number format expected, "bf16" or "w8a8_dynamic"."""
    table = read_columns(file, ("m", "n", "k", "latency_us"), only={"quant": quant})
    return GemmPoints(table["latency_us"] * US, table["m"], table["n"], table["k"])


def read_attention(file: Path, operation: str) -> AttentionPoints:
    """``operation`` is "attention_context" (prefill) or "attention_generation" (decode)."""
    numbers = ("batch", "seq_len", "num_heads", "num_kv_heads", "latency_us")
    table = read_columns(file, numbers, only={"op": operation, "head_dim": "128"})
    return AttentionPoints(
        table["latency_us"] * US, table["num_heads"], table["num_kv_heads"], table["batch"], table["seq_len"]
    )
