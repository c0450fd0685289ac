"""How the matrices of a model's layers are stored where that is not the model's own dtype: fp8, int8 or int4."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from simserve.models.keys import Keys

WeightDtype = Literal["fp8", "int8", "int4"]

WEIGHT_BITS: dict[WeightDtype, int] = {"fp8": 8, "int8": 8, "int4": 4}

SCALE_BYTES = 2
"""Of the scale that a group of weights shares, in 16 bits as kernels read it."""

USUAL_GROUP = 128
"""Weights that share a scale in nearly all published AWQ and GPTQ checkpoints."""


@dataclass(frozen=True)
class Quantization:
    """The layers' matrices in ``weight_dtype``; embedding, lm_head, router and norms keep the model's dtype.

    ``method`` is vLLM's name of it. ``quantised_activations`` (W8A8) means that products are computed in
    ``weight_dtype`` too; without, weights are widened first. ``group_size`` weights share a scale, and a zero point if
    there are ``zero_points``; None where a whole row or a large block does, which adds next to nothing.
    ``kv_dtype`` is the format for which the checkpoint brings scales of the KV cache.
    """

    method: str
    weight_dtype: WeightDtype
    quantised_activations: bool
    group_size: int | None = None
    zero_points: bool = False
    kv_dtype: Literal["fp8"] | None = None

    @property
    def label(self) -> str:
        """``fp8 weights``, or ``awq: int4 weights``."""
        stored = f"{self.weight_dtype} weights"
        return stored if self.method == self.weight_dtype else f"{self.method}: {stored}"

    @property
    def bytes_per_weight(self) -> float:
        """Bytes of one weight with its part of scale and zero point."""
        weight = WEIGHT_BITS[self.weight_dtype] / 8
        if self.group_size is None:
            return weight
        return weight + (SCALE_BYTES + (weight if self.zero_points else 0.0)) / self.group_size


METHODS: Mapping[str, Quantization] = {
    "fp8": Quantization("fp8", "fp8", quantised_activations=True),
    "int8": Quantization("int8", "int8", quantised_activations=True),
    "awq": Quantization("awq", "int4", quantised_activations=False, group_size=USUAL_GROUP, zero_points=True),
    "gptq": Quantization("gptq", "int4", quantised_activations=False, group_size=USUAL_GROUP),
}
"""What ``--quantization`` makes of a model whose config.json says nothing: what a usual checkpoint of it holds."""

MATRICES = {
    "q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj", "out_proj", "gate_proj", "up_proj", "down_proj", "gate_up_proj",
    "fc1", "fc2", "self_attn", "mlp", "experts",
}  # fmt: skip
"""Names, in checkpoints, of what is taken to be quantised, all or nothing."""


def parse_quantization(keys: Keys) -> Quantization:
    """What a config.json's ``quantization_config`` says.

    Raises :class:`simserve.errors.ModelError` for a method or a mixture of formats that is not modelled.
    """
    method = keys.text("quant_method")
    reader = READERS.get(method)
    if reader is None:
        raise keys.error("quant_method", f"is '{method}', which is not one of {', '.join(READERS)}")
    for left_out in ("modules_to_not_convert", "ignored_layers", "ignore"):
        _refuse_mixtures(keys, left_out)
    return reader(keys)


def _awq(keys: Keys) -> Quantization:
    _one_of(keys, "bits", (4,))
    zero_points = keys.boolean("zero_point", default=True)
    return Quantization("awq", "int4", quantised_activations=False, group_size=_group(keys), zero_points=zero_points)


def _gptq(keys: Keys) -> Quantization:
    bits = _one_of(keys, "bits", (4, 8))
    if keys.config.get("dynamic"):
        raise keys.error("dynamic", "gives layers formats of their own, which is not supported")
    if keys.boolean("lm_head", default=False):
        raise keys.error("lm_head", "is true: a quantised lm_head is not supported")
    return Quantization(
        "gptq",
        "int4" if bits == 4 else "int8",
        quantised_activations=False,
        group_size=_group(keys),
        zero_points=not keys.boolean("sym", default=True),
    )


def _fp8(keys: Keys) -> Quantization:
    return Quantization("fp8", "fp8", quantised_activations=True)


def _compressed_tensors(keys: Keys) -> Quantization:
    groups = _objects(keys, "config_groups")
    schemes = {_scheme(keys, group) for group in groups}
    if len(schemes) != 1:
        raise keys.error("config_groups", f"has {len(schemes)} different schemes, where one is supported")
    weight_dtype, quantised_activations, group_size, symmetric = schemes.pop()
    cache = keys.config.get("kv_cache_scheme")
    if cache is not None and _number_format(keys, "kv_cache_scheme", cache) != ("float", 8):
        raise keys.error("kv_cache_scheme", "is not of 8-bit floats, which is not supported")
    return Quantization(
        "compressed-tensors",
        weight_dtype,
        quantised_activations,
        group_size,
        zero_points=group_size is not None and not symmetric,
        kv_dtype=None if cache is None else "fp8",
    )


READERS = {"awq": _awq, "gptq": _gptq, "fp8": _fp8, "compressed-tensors": _compressed_tensors}


def _scheme(keys: Keys, group: Mapping[str, Any]) -> tuple[WeightDtype, bool, int | None, bool]:
    """(weights' format, whether activations have it too, weights per scale, whether without zero points)."""
    weights, inputs = group.get("weights"), group.get("input_activations")
    weight_format = _number_format(keys, "config_groups", weights)
    known: dict[tuple[str, int], WeightDtype] = {("float", 8): "fp8", ("int", 8): "int8", ("int", 4): "int4"}
    weight_dtype = known.get(weight_format)
    if weight_dtype is None or (inputs is not None and weight_dtype == "int4"):
        kind = f"{weight_format[1]}-bit {weight_format[0]} weights"
        raise keys.error("config_groups", f"has {kind}{' with quantised activations' if inputs else ''}: not supported")
    if inputs is not None and _number_format(keys, "config_groups", inputs) != weight_format:
        raise keys.error("config_groups", "has activations in another format than weights, which is not supported")
    assert isinstance(weights, Mapping)
    in_groups = weights.get("strategy") == "group"
    group_size = Keys(weights, f"{keys.source}.config_groups").integer("group_size") if in_groups else None
    return weight_dtype, inputs is not None, group_size, bool(weights.get("symmetric", True))


def _number_format(keys: Keys, key: str, scheme: object) -> tuple[str, int]:
    """("float" or "int", bits) of a compressed-tensors scheme."""
    if not isinstance(scheme, Mapping):
        raise keys.error(key, f"must say how numbers are stored, not {scheme!r}")
    inner = Keys(scheme, f"{keys.source}.{key}")
    return inner.text("type"), inner.integer("num_bits")


def _objects(keys: Keys, key: str) -> list[Mapping[str, Any]]:
    content = keys.config.get(key)
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Mapping) for v in content.values()):
        raise keys.error(key, f"must be an object of objects, not {content!r}")
    return list(content.values())


def _one_of(keys: Keys, key: str, supported: Iterable[int]) -> int:
    value = keys.integer(key)
    if value not in supported:
        raise keys.error(key, f"is {value}, which is not one of {', '.join(map(str, supported))}")
    return value


def _group(keys: Keys) -> int | None:
    size = keys.integer("group_size", default=USUAL_GROUP, minimum=-1)
    return size if size > 0 else None


def _refuse_mixtures(keys: Keys, left_out: str) -> None:
    """Modules that are not quantised may be those that never are here, not some of the layers' matrices."""
    names = keys.config.get(left_out) or ()
    if not isinstance(names, list | tuple):
        raise keys.error(left_out, f"must be a list of modules, not {names!r}")
    for name in names:
        last = str(name).removeprefix("re:").rstrip("$*.\\").rsplit(".", 1)[-1].lstrip("*^")
        if last in MATRICES or last.isdigit():
            raise keys.error(left_out, f"leaves {name} unquantised, which is not supported: it is all or no layers")
