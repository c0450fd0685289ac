"""In which number formats an engine holds and computes a model: what was asked for, held against what there is."""

from __future__ import annotations

from dataclasses import dataclass

from simserve.config import KV_CACHE_DTYPES, QUANTIZATIONS, EngineOptions
from simserve.errors import ConfigError
from simserve.hardware import Carried, HardwareProfile
from simserve.latency.number_formats import WeightFormat, carried_over, check_kv_dtype, weight_format
from simserve.models import METHODS, ModelSpec, Quantization


@dataclass(frozen=True)
class Formats:
    """``dtype`` of activations and of all weights that ``quantization`` leaves alone, and that of the KV cache."""

    dtype: str
    quantization: Quantization | None
    weights: WeightFormat
    kv_dtype: str
    carried: tuple[Carried, ...]
    """Efficiencies that were not measured in these formats."""

    @property
    def label(self) -> str:
        """For headings: ``bfloat16``, or ``bfloat16, awq: int4 weights, fp8 KV cache``."""
        parts = [self.dtype]
        if self.quantization is not None:
            parts.append(self.quantization.label)
        if self.kv_dtype != self.dtype:
            parts.append(f"{self.kv_dtype} KV cache")
        return ", ".join(parts)


def formats_of(model: ModelSpec, hardware: HardwareProfile, options: EngineOptions) -> Formats:
    """What ``options`` mean for ``model`` on ``hardware``.

    Raises :class:`ConfigError` for a quantization that contradicts the model's, :class:`HardwareError` for a format
    that the hardware has no peak for.
    """
    dtype = options.dtype or ("float16" if model.dtype == "float32" and hardware.kind == "gpu" else model.dtype)
    quantization = _quantization(model, options)
    if quantization is not None:
        _check_groups(model, quantization, options.tensor_parallel_size)
    weights = weight_format(quantization, dtype, hardware)
    if options.kv_cache_dtype != "auto":
        kv_dtype = KV_CACHE_DTYPES[options.kv_cache_dtype]
    else:
        kv_dtype = (quantization and quantization.kv_dtype) or dtype
    check_kv_dtype(kv_dtype, hardware)
    carried = carried_over(hardware, quantization, weights, kv_dtype, dtype)
    return Formats(dtype, quantization, weights, kv_dtype, carried)


def _quantization(model: ModelSpec, options: EngineOptions) -> Quantization | None:
    published = model.quantization
    if options.quantization is None:
        return published
    method = QUANTIZATIONS[options.quantization]
    if published is not None:
        if method != published.method:
            raise ConfigError(
                f"--quantization {options.quantization} contradicts {model.name}, whose config.json says "
                f"{published.method}; leave the option out"
            )
        return published
    if method not in METHODS:
        raise ConfigError(
            f"--quantization {options.quantization} needs a model whose config.json says how its weights are stored, "
            f"and that of {model.name} does not; choose one of {', '.join(METHODS)}"
        )
    return METHODS[method]


def _check_groups(model: ModelSpec, quantization: Quantization, tensor_parallel_size: int) -> None:
    """A device must hold whole groups of weights that share a scale, or vLLM does not load the model."""
    group = quantization.group_size
    split = [gemm for gemm in model.gemms(tensor_parallel_size) if gemm.quantisable and group and gemm.k % group]
    if split:
        raise ConfigError(
            f"{model.name} cannot be held in groups of {group} weights on {tensor_parallel_size} devices: "
            f"{split[0].name} has {split[0].k} columns on each; choose another --tensor-parallel-size"
        )
