"""Matrix products with weights: the part of a step that everything else hides behind."""

from __future__ import annotations

import torch
import torch.nn.functional as F

PACKED_FOR_ROWS = 32
"""A hint to oneDNN; measured on AVX512 and AMX, what it packs for 1 row or for 64 is as fast at any number of rows."""


class Linear:
    """``y = x W^T + b`` for ``x`` of any leading shape.

    On CPUs the weight is stored in oneDNN's blocked layout, as torch.compile does when it freezes a model: against
    ``F.linear`` on two AVX512 cores, float32 is as fast at 1 row and 1.5 to 2 times as fast at 4 to 32 rows, bfloat16
    1.3 to 1.5 times at 1 to 64 rows. ``packed`` false keeps the plain layout, which a compiler can read.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None, *, packed: bool = True) -> None:
        self.bias = bias
        self._packed = packed and weight.device.type == "cpu" and _can_pack(weight.dtype)
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, PACKED_FOR_ROWS) if self._packed else weight

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """``x`` times the weight, plus the bias if there is one."""
        if self._packed:
            y: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
            return y
        return F.linear(x, self.weight, self.bias)


_CAN_PACK: dict[torch.dtype, bool] = {}


def _can_pack(dtype: torch.dtype) -> bool:
    """Whether this torch and this processor have the packed product; it is not a public function, so it is tried."""
    if dtype not in _CAN_PACK:
        try:
            weight, x = torch.eye(32, dtype=dtype), torch.ones(2, 32, dtype=dtype)
            packed = torch.ops.mkldnn._reorder_linear_weight(weight, PACKED_FOR_ROWS)
            y = torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")
            _CAN_PACK[dtype] = torch.equal(y, x)
        except (RuntimeError, AttributeError, NotImplementedError):
            _CAN_PACK[dtype] = False
    return _CAN_PACK[dtype]
