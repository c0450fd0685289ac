"""What makes two models take the same time: every size of a ModelSpec, and nothing of its name or its weights."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from simserve.errors import HardwareError
from simserve.hardware import StepAnchors
from simserve.models import ModelSpec, MoeSpec

NOT_OF_THE_SHAPE = ("name", "dtype", "max_model_len", "path", "quantization")


def shape_of(model: ModelSpec) -> dict[str, Any]:
    """The shape as a profile's ``step_anchors`` hold it: plain values, without those that are None."""
    shape = {name: value for name, value in asdict(model).items() if name not in NOT_OF_THE_SHAPE and value is not None}
    if model.moe is not None:
        shape["moe"] = shape["moe"] | {"sparse_layers": list(model.moe.sparse_layers)}
    return shape


def model_of(anchors: StepAnchors) -> ModelSpec:
    """The model that ``anchors`` were measured with; raises :class:`HardwareError` if no model has its shape."""
    fields = dict(anchors.shape)
    try:
        if "moe" in fields:
            fields["moe"] = MoeSpec(**fields["moe"] | {"sparse_layers": tuple(fields["moe"]["sparse_layers"])})
        return ModelSpec(name=anchors.model, dtype=anchors.dtype, max_model_len=1 << 30, **fields)
    except (TypeError, KeyError) as error:
        raise HardwareError(f"the step anchors of {anchors.model} have a shape that no model has: {error}") from None
