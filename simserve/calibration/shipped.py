"""Which published tables stand behind which shipped profile, and how they are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from simserve.calibration.importers import aiconfigurator, ascend, llmservingsim, vidur
from simserve.calibration.limits import Source
from simserve.calibration.points import (
    AllReducePoints,
    AttentionPoints,
    ElementwisePoints,
    GemmPoints,
    MixedPoints,
)

USUAL_FOLDER = Path("../shared/measurements/ops")
"""Where the tables lie beside a checkout of the project."""

APACHE, MIT = "Apache-2.0", "MIT"
AICONFIGURATOR = "github.com/ai-dynamo/aiconfigurator"
LLMSERVINGSIM = "github.com/casys-kaist/LLMServingSim"
ASCEND = Source(
    "github.com/hudingyi688/aiconfigurator-npu", "none stated: figures only", "vLLM-Ascend 0.18, graph replay"
)


@dataclass(frozen=True)
class Tables:
    """Readers of one device's tables, with where they come from; None for what was never measured."""

    gemm: tuple[Source, Callable[[Path], GemmPoints]]
    decode: tuple[Source, Callable[[Path], AttentionPoints]] | None = None
    prefill: tuple[Source, Callable[[Path], AttentionPoints]] | None = None
    mixed: tuple[Source, Callable[[Path], MixedPoints]] | None = None
    elementwise: tuple[Source, Callable[[Path], ElementwisePoints]] | None = None
    all_reduce: tuple[Source, Callable[[Path], AllReducePoints]] | None = None
    quantized_gemm: tuple[Source, Callable[[Path], GemmPoints]] | None = None
    most_columns: int = 24
    """Numbers of tokens that the GEMM curves keep."""


def aiconfigurator_tables(folder: str, engine: str, communication: str) -> Tables:
    """The tables that aiconfigurator publishes of one device, in ``folder``."""
    source = Source(AICONFIGURATOR, APACHE, f"{engine}, bfloat16")

    def file(kind: str) -> Callable[[Path], Path]:
        return lambda root: root / folder / f"{engine.lower()}_{kind}.csv"

    gemm, decode, prefill = file("gemm_bf16"), file("generation_attention_hd128"), file("context_attention_hd128")
    return Tables(
        gemm=(source, lambda root: aiconfigurator.read_gemms(gemm(root))),
        decode=(source, lambda root: aiconfigurator.read_attention(decode(root))),
        prefill=(source, lambda root: aiconfigurator.read_attention(prefill(root))),
        all_reduce=(
            Source(AICONFIGURATOR, APACHE, f"vLLM {communication}, custom all-reduce in a CUDA graph"),
            lambda root: aiconfigurator.read_all_reduce(
                root / folder / f"comm_vllm_{communication}_custom_allreduce_perf.csv"
            ),
        ),
    )


def _llmservingsim_tables(folder: str, measured: str) -> Tables:
    source = Source(LLMSERVINGSIM, MIT, measured)

    def read(root: Path) -> tuple[GemmPoints, ElementwisePoints]:
        stem = f"perf_{folder}_Llama-3.1-8B_tp1"
        gemms, small = llmservingsim.read_layers_us(root / folder / f"{stem}_dense.csv")
        heads, sampler = llmservingsim.read_layers_us(root / folder / f"{stem}_per_sequence.csv")
        return gemms.joined(heads), small.joined(sampler)

    return Tables(
        gemm=(source, lambda root: read(root)[0]),
        elementwise=(source, lambda root: read(root)[1]),
        mixed=(
            source,
            lambda root: llmservingsim.read_mixed_attention(
                root / folder / f"perf_{folder}_Llama-3.1-8B_tp1_attention.csv"
            ),
        ),
        most_columns=160,
    )


def _rtx3090_gemms(root: Path) -> GemmPoints:
    whole, half = (
        llmservingsim.read_layers_ns(
            root / "RTX3090" / f"v0_RTX3090_meta-llama_Llama-3.1-8B_tp{devices}_layers_ns.csv", devices
        )
        for devices in (1, 2)
    )
    return whole.joined(half)


def _tpu_gemms(root: Path) -> GemmPoints:
    # o_proj comes out several times faster than its weights can be read.
    file = root / "TPUv6e" / "v0_TPU-v6e-1_meta-llama_Llama-3.1-8B_tp1_layers_ns.csv"
    return llmservingsim.read_layers_ns(file, 1, leave_out=("o_proj",))


def _tpu_attention(root: Path) -> MixedPoints:
    file = root / "TPUv6e" / "v0_TPU-v6e-1_meta-llama_Llama-3.1-8B_tp1_attention.csv.gz"
    return llmservingsim.read_attention_ns(file)


_BLACKWELL_LAYERS = _llmservingsim_tables("RTXPRO6000", "vLLM 0.19.0, 2026-04-24, bfloat16")
_BLACKWELL = aiconfigurator_tables("RTXPRO6000", "vLLM0.19.0", "0.24.0")

TABLES: dict[str, Tables] = {
    "A100-SXM4-80GB": replace(
        aiconfigurator_tables("A100-SXM4-80GB", "vLLM0.14.0", "0.14.0"),
        elementwise=(
            Source("github.com/microsoft/vidur", MIT, "kernels of vLLM of 2024, half precision"),
            lambda root: vidur.read_small_operators(root / "A100-SXM4-80GB" / "a100_Meta-Llama-3-8B_mlp_medians.csv"),
        ),
    ),
    "H100-SXM": aiconfigurator_tables("H100-SXM", "vLLM0.19.0", "0.19.0"),
    "L40S": aiconfigurator_tables("L40S", "vLLM0.24.0", "0.22.0"),
    "RTXPRO6000": Tables(
        gemm=_BLACKWELL.gemm,
        decode=_BLACKWELL.decode,
        prefill=_BLACKWELL.prefill,
        all_reduce=_BLACKWELL.all_reduce,
        mixed=_BLACKWELL_LAYERS.mixed,
        elementwise=_BLACKWELL_LAYERS.elementwise,
    ),
    "RTX4090": _llmservingsim_tables("RTX4090", "vLLM 0.19.0, 2026-08-17, bfloat16"),
    "RTX3090": Tables(
        gemm=(Source(LLMSERVINGSIM, MIT, "eager PyTorch, Llama-3.1-8B at TP 1 and 2"), _rtx3090_gemms), most_columns=260
    ),
    "TPUv6e": Tables(
        gemm=(Source(LLMSERVINGSIM, MIT, "JAX, Llama-3.1-8B; noisy"), _tpu_gemms),
        mixed=(Source(LLMSERVINGSIM, MIT, "JAX, attention of Llama-3.1-8B"), _tpu_attention),
        most_columns=60,
    ),
    "NPU-Ascend910B": Tables(
        gemm=(ASCEND, lambda root: ascend.read_gemms(root / "Ascend910B" / "MatMulV2_tidy.csv", "bf16")),
        quantized_gemm=(
            ASCEND,
            lambda root: ascend.read_gemms(root / "Ascend910B" / "QuantBatchMatmulV3_tidy.csv", "w8a8_dynamic"),
        ),
        decode=(
            ASCEND,
            lambda root: ascend.read_attention(
                root / "Ascend910B" / "FusedInferAttentionScore_Decode_tidy.csv", "attention_generation"
            ),
        ),
        prefill=(
            ASCEND,
            lambda root: ascend.read_attention(
                root / "Ascend910B" / "FusedInferAttentionScore_tidy.csv", "attention_context"
            ),
        ),
    ),
}
"""By the profile's name."""


def decodes_of(
    points: MixedPoints, heads: int = llmservingsim.HEADS, kv_heads: int = llmservingsim.KV_HEADS
) -> AttentionPoints:
    """The calls of a mixed table that have decodes only."""
    alone = points.where((points.chunk == 0) & (points.decodes > 0))
    shape = alone.seconds.shape
    return AttentionPoints(
        alone.seconds, np.full(shape, float(heads)), np.full(shape, float(kv_heads)), alone.decodes, alone.context
    )


def has_both(points: MixedPoints) -> bool:
    """Whether any call of a mixed table has decodes beside a chunk."""
    return bool(((points.chunk > 0) & (points.decodes > 0)).any())


@dataclass(frozen=True)
class Derivation:
    """An operator whose curves are another device's: why, and how far off that may be."""

    source: str
    because: str
    uncertainty: float


def _all_from(source: str, because: str, uncertainty: float, *operators: str) -> dict[str, Derivation]:
    return {operator: Derivation(source, because, uncertainty) for operator in operators}


ANOTHER_CHIP = {"gemm": 0.38, "decode_attention": 0.45, "prefill_attention": 0.27}
"""Uncertainty of curves lent to another chip: medians over pairs of measured GPUs of the 90th percentile of the error,
as ``python -m simserve.calibration.transfer`` prints them."""

SAME_CHIP, SAME_ARCHITECTURE = 0.1, 0.2
"""Estimates, for want of two measured devices of one chip or architecture with all of their tables."""


def _another(source: str, because: str, *operators: str) -> dict[str, Derivation]:
    return {operator: Derivation(source, because, ANOTHER_CHIP[operator]) for operator in operators}


_ATTENTION = ("decode_attention", "prefill_attention")
_LARGE = ("gemm", *_ATTENTION)
_SMALL = _all_from(
    "A100-SXM4-80GB", "small operators were measured there, with a last cache as small", 0.2, "elementwise"
)
_SMALL_CACHED = _all_from(
    "RTX4090", "small operators were measured there, with a last cache as large", 0.2, "elementwise"
)

DERIVED: dict[str, dict[str, Derivation]] = {
    "H100-SXM": _SMALL,
    "L40S": _SMALL_CACHED | _all_from("RTX4090", "the same architecture", SAME_ARCHITECTURE, "mixed_decode"),
    "RTX4090": _another(
        "L40S", "the same architecture; used for prompts without a chunk table only", "prefill_attention"
    )
    | _all_from("RTXPRO6000", "PCIe without NVLink there too", 0.3, "all_reduce"),
    "RTX3090": _another("A100-SXM4-80GB", "the same generation and attention kernels; never measured here", *_ATTENTION)
    | _SMALL,
    "A6000": _another("L40S", "its successor, as power-limited", "gemm")
    | _another("A100-SXM4-80GB", "the same generation and attention kernels", *_ATTENTION)
    | _SMALL,
    "L4": _another("L40S", "the same architecture, more power-limited", *_LARGE) | _SMALL_CACHED,
    "H200": _all_from("H100-SXM", "the same chip with faster memory", SAME_CHIP, *_LARGE, "all_reduce") | _SMALL,
    "H100-PCIe": _all_from("H100-SXM", "the same chip with fewer units and less power", 0.15, *_LARGE) | _SMALL,
    "B200": _another("H100-SXM", "the closest measured architecture", *_LARGE)
    | _all_from("H100-SXM", "the closest measured architecture", 0.3, "all_reduce")
    | _SMALL_CACHED,
    "NPU-Ascend910B": _SMALL,
    "TPUv6e": _SMALL,
} | {
    name: _all_from("A100-SXM4-80GB", "the same chip with other memory or power limit", SAME_CHIP, *_LARGE) | _SMALL
    for name in ("A100-80GB-PCIe", "A100-40GB-SXM", "A100-40GB-PCIe")
}
"""By profile and operator."""

UNPACKED = {"packs_query_heads": False}
FLAGS: dict[str, dict[str, bool]] = dict.fromkeys(
    (
        "A100-SXM4-80GB", "A100-80GB-PCIe", "A100-40GB-SXM", "A100-40GB-PCIe", "A6000", "RTX3090", "RTX4090", "L40S",
        "L4", "RTXPRO6000",
    ),
    UNPACKED,
)  # fmt: skip
"""Devices on which vLLM runs FlashAttention 2."""
