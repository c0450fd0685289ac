"""What it takes to compute a model, beyond the shapes that a ModelSpec has: rotary positions, epsilons, end tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simserve.errors import ModelError
from simserve.models import ModelSpec

ACTIVATIONS = ("silu", "relu", "gelu")
ROPE_TYPES = ("default", "linear", "llama3", "yarn")


@dataclass(frozen=True)
class Details:
    """Read from a model's config.json and generation_config.json; the defaults are transformers'.

    ``rope`` holds ``rope_type`` and its parameters as they stand in the config. ``generation`` are the sampling
    parameters that the model's makers recommend. ``pre_norm`` is false for OPT-350m, which normalises after adding.
    """

    norm_eps: float = 1e-6
    activation: str = "silu"
    rope_theta: float = 10000.0
    rope: Mapping[str, Any] = field(default_factory=dict)
    pre_norm: bool = True
    normalise_experts: bool = True
    eos_token_ids: tuple[int, ...] = ()
    generation: Mapping[str, Any] = field(default_factory=dict)


def read_details(spec: ModelSpec) -> Details:
    """The details of ``spec``, whose folder has a config.json; without a folder, the defaults.

    Raises :class:`ModelError` naming file and key where something is not understood.
    """
    if spec.path is None:
        return Details(activation="silu" if spec.gated_mlp else "relu", norm_eps=1e-6 if spec.gated_mlp else 1e-5)
    source = spec.path / "config.json"
    config = _read_json(source)
    generation_file = spec.path / "generation_config.json"
    generation = _read_json(generation_file) if generation_file.is_file() else {}
    opt = spec.architecture == "OPTForCausalLM"
    default_eps = 1e-5 if opt or spec.architecture == "MixtralForCausalLM" else 1e-6
    return Details(
        norm_eps=1e-5 if opt else float(config.get("rms_norm_eps") or default_eps),
        activation=_one_of(source, config, "activation_function" if opt else "hidden_act", ACTIVATIONS, opt),
        rope_theta=_rope_theta(config, default=1e6 if spec.architecture == "MixtralForCausalLM" else 1e4),
        rope=_rope(source, config),
        pre_norm=bool(config.get("do_layer_norm_before", True)),
        normalise_experts=_normalises_experts(spec, config),
        eos_token_ids=_end_tokens(config, generation),
        generation={key: generation[key] for key in _GENERATION_KEYS if generation.get(key) is not None},
    )


_GENERATION_KEYS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file}: cannot be read ({error})") from None
    if not isinstance(content, dict):
        raise ModelError(f"{file}: must hold a JSON object")
    return content


def _one_of(source: Path, config: Mapping[str, Any], key: str, known: tuple[str, ...], opt: bool) -> str:
    value = config.get(key) or ("relu" if opt else "silu")
    if value not in known:
        raise ModelError(f"{source}: key '{key}' is {value!r}, and the torch engine knows {', '.join(known)}")
    return str(value)


def _rope_theta(config: Mapping[str, Any], default: float) -> float:
    parameters = config.get("rope_parameters") or {}
    return float(parameters.get("rope_theta") or config.get("rope_theta") or default)


def _rope(source: Path, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Under ``rope_parameters`` from transformers 5 on, ``rope_scaling`` before; "type" was the kind's first name."""
    rope = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    rope["rope_type"] = kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind not in ROPE_TYPES:
        raise ModelError(f"{source}: rope type {kind!r} is none of {', '.join(ROPE_TYPES)}, which the torch engine has")
    missing = [key for key in _ROPE_NEEDS.get(kind, ()) if not isinstance(rope.get(key), int | float)]
    if missing:
        raise ModelError(f"{source}: rope type {kind!r} needs a number '{missing[0]}'")
    if (config.get("partial_rotary_factor") or rope.get("partial_rotary_factor") or 1.0) != 1.0:
        raise ModelError(f"{source}: key 'partial_rotary_factor' is set: the torch engine rotates whole heads only")
    rope.setdefault("original_max_position_embeddings", config.get("max_position_embeddings"))
    return rope


_ROPE_NEEDS = {
    "linear": ("factor",),
    "yarn": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}


def _normalises_experts(spec: ModelSpec, config: Mapping[str, Any]) -> bool:
    """Whether the weights of a token's experts are made to sum to 1; Mixtral always does."""
    return spec.architecture == "MixtralForCausalLM" or bool(config.get("norm_topk_prob", False))


def _end_tokens(config: Mapping[str, Any], generation: Mapping[str, Any]) -> tuple[int, ...]:
    """generation_config.json may name several (end of text, end of turn); config.json has the model's own."""
    ids: dict[int, None] = {}
    for source in (generation, config):
        value = source.get("eos_token_id")
        for token_id in value if isinstance(value, list) else [value]:
            if isinstance(token_id, int):
                ids[token_id] = None
    return tuple(ids)
