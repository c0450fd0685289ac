"""Matrix products with weights: the part of a step that everything else hides behind."""

from __future__ import annotations

import torch
import torch.nn.functional as F

PACKED_FOR_ROWS = 32
"""A hint to oneDNN; measured on AVX512 and AMX, what it packs for 1 row or for 64 is as fast at any number of rows."""

PLAIN_ROWS = 2
"""Up to so many float32 rows, torch's own product is faster."""


class Linear:
    """``y = x W^T + b`` for rows ``x``.

    On CPUs the weight is stored in oneDNN's blocked layout, as torch.compile does when it freezes a model: against
    ``F.linear`` on AVX512 cores, float32 is 1.3 to 2 times as fast at 4 to 32 rows, bfloat16 1.3 to 1.5 times at 1 to
    64 rows. One or two float32 rows are up to a quarter slower, for which the plain layout is kept as well with
    ``keep_plain``. Without ``packed`` there is the plain layout alone, which a compiler can read.
    """

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor | None = None, *, packed: bool = True, keep_plain: bool = True
    ) -> None:
        self._bias = bias
        self._packed: torch.Tensor | None = None
        if packed and weight.device.type == "cpu" and _can_pack(weight.dtype):
            self._packed = torch.ops.mkldnn._reorder_linear_weight(weight, PACKED_FOR_ROWS)
        keeps = self._packed is None or (keep_plain and weight.dtype == torch.float32)
        self._plain = weight if keeps else None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """``x`` times the weight, plus the bias if there is one."""
        if self._plain is not None and (self._packed is None or len(x) <= PLAIN_ROWS):
            return F.linear(x, self._plain, self._bias)
        y: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self._bias, "none", [], "")
        return y


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
