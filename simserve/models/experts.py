"""A mixture of experts whose experts are split over more devices than its attention is, or otherwise."""

from __future__ import annotations

from dataclasses import dataclass, fields

from simserve.errors import ModelError
from simserve.models.operators import Gemm
from simserve.models.spec import ModelSpec


@dataclass(frozen=True)
class SplitExperts(ModelSpec):
    """A model whose experts are spread over ``expert_devices``: each has some of them whole, or a part of each.

    ``holds_experts`` False is all but the experts.
    """

    expert_devices: int = 1
    whole_experts: bool = False
    holds_experts: bool = True

    @property
    def experts_on_device(self) -> int:
        """Experts of one layer that a device has, or has parts of."""
        assert self.moe is not None
        return self.moe.num_experts // self.expert_devices if self.whole_experts else self.moe.num_experts

    def _expert_gemms(self, tensor_parallel_size: int) -> list[Gemm]:
        others = [gemm for gemm in super()._expert_gemms(tensor_parallel_size) if gemm.kind != "expert"]
        if self.moe is None or not others or not self.holds_experts:
            return others
        width, layers = self.moe.expert_intermediate_size, len(self.moe.sparse_layers)
        if not self.whole_experts:
            width = self._share(width, "expert columns", self.expert_devices)
        return [
            *others,
            Gemm("expert_gate_up", 2 * width, self.hidden_size, layers, "column", "expert"),
            Gemm("expert_down", self.hidden_size, width, layers, "row", "expert"),
        ]

    def _copies(self, gemm: Gemm) -> int:
        return self.experts_on_device if gemm.kind == "expert" else 1


def with_experts_over(model: ModelSpec, devices: int, *, whole: bool) -> ModelSpec:
    """``model`` with its experts over ``devices``; itself where it has none and none are to be ``whole``.

    Raises :class:`ModelError` for whole experts that are not there, or cannot be dealt out evenly.
    """
    if model.moe is None:
        if whole:
            raise ModelError(f"enable_expert_parallel: {model.name} has no experts to split; leave it out")
        return model
    if whole and model.moe.num_experts % devices:
        raise ModelError(
            f"enable_expert_parallel: {model.name} has {model.moe.num_experts} experts, which {devices} devices (of "
            "tensor_parallel_size times data_parallel_size) do not divide; choose other sizes"
        )
    values = {field.name: getattr(model, field.name) for field in fields(ModelSpec)}
    return SplitExperts(**values, expert_devices=devices, whole_experts=whole)
