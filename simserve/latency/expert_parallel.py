"""How long a step takes where experts are spread over the devices of several ranks, which wait for each other.

Each rank computes attention and everything else of its own batch; its tokens then go to the devices that have their
experts and come back. As all layers are alike, the slowest rank is the same in each, so that a step takes what the
slowest rank takes for its own part, what the fullest device takes for its experts, and the exchange.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from simserve.hardware import HardwareProfile
from simserve.latency.communication import all_reduce_s
from simserve.latency.host import VLLM_V1, HostCosts, graph_sizes, padded_tokens
from simserve.latency.layers import Layers
from simserve.latency.lines import Floats
from simserve.latency.links import send_s
from simserve.latency.number_formats import WeightFormat, plain_format
from simserve.latency.routing import FullestDevice, remote_devices
from simserve.latency.step_timer import StepTimer
from simserve.models import Gemm, SplitExperts, dtype_bytes_of

RankBatch = tuple[int, int, Sequence[tuple[int, int]], int]
"""What a rank computes in a step: the arguments of :meth:`StepTimer.step_s`."""


class ExpertLayers(Layers):
    """The experts on one device of ``model``, for rows of all ranks together."""

    def __init__(
        self,
        model: SplitExperts,
        hardware: HardwareProfile,
        dtype: str,
        weights: WeightFormat,
        tensor_parallel_size: int,
    ) -> None:
        super().__init__(model, hardware, dtype, weights, tensor_parallel_size)
        assert model.moe is not None
        self._split, self._moe = model, model.moe
        self._experts = [gemm for gemm in self._body if gemm.kind == "expert"]
        self._fullest: FullestDevice | None = None
        if model.whole_experts:
            moe = model.moe
            self._fullest = FullestDevice(moe.num_experts, moe.experts_per_token, model.expert_devices)

    def experts_s(self, rows: Floats) -> Floats:
        """Seconds of the fullest device in all layers, for each of ``rows``."""
        return self._sum_s(self._experts, rows)

    def experts_work(self, rows: Floats) -> tuple[Floats, Floats]:
        """FLOPs and bytes on a device in all layers, on average, for each of ``rows``."""
        left_out = (1 - self._moe.experts_per_token / self._moe.num_experts) ** rows
        visited = self._split.experts_on_device * (1 - left_out)
        pairs = rows * self._moe.experts_per_token / (self._split.expert_devices if self._fullest else 1)
        flops, moved = np.zeros_like(rows), np.zeros_like(rows)
        for gemm in self._experts:
            products = self._products(gemm)
            flops += gemm.count * 2 * pairs * gemm.weights
            moved += gemm.count * visited * gemm.weights * products.weight_bytes
            moved += gemm.count * pairs * (gemm.n + gemm.k) * products.activation_bytes
        return flops, moved

    def _visits(self, gemm: Gemm, rows: Floats) -> tuple[Floats, Floats]:
        if gemm.kind != "expert" or self._fullest is None:
            return super()._visits(gemm, rows)
        return self._fullest.visited(rows), self._fullest.pairs(rows)


class ExpertTimer(StepTimer):
    """Step times of ``data_parallel_size`` ranks of ``tensor_parallel_size`` devices each, whose experts are shared.

    Times of links are ``link_factor`` times what their data sheet makes them. The other arguments are those of
    :class:`StepTimer`.
    """

    def __init__(
        self,
        model: SplitExperts,
        hardware: HardwareProfile,
        *,
        dtype: str,
        tensor_parallel_size: int,
        data_parallel_size: int,
        max_tokens: int,
        max_seqs: int,
        weights: WeightFormat | None = None,
        kv_dtype: str | None = None,
        host: HostCosts = VLLM_V1,
        graphs: bool = True,
        link_factor: float = 1.0,
    ) -> None:
        super().__init__(
            replace(model, holds_experts=False),
            hardware,
            dtype=dtype,
            tensor_parallel_size=tensor_parallel_size,
            max_tokens=max_tokens,
            max_seqs=max_seqs,
            weights=weights,
            kv_dtype=kv_dtype,
            host=replace(host, step_s=0.0, request_s=0.0, hidden=False),
            graphs=graphs,
        )
        self.ranks = data_parallel_size
        self._ranks_host = host
        sizes = graph_sizes(max_seqs, max_tokens) if graphs else []
        self._graph_tokens = sizes[-1] if sizes else 0
        self._padded: list[int] = padded_tokens(max_tokens, sizes).tolist()
        layers = ExpertLayers(model, hardware, dtype, weights or plain_format(dtype), tensor_parallel_size)
        tokens = np.arange(max_tokens + 1.0)
        self._experts_s: list[float] = layers.experts_s(np.arange(self.ranks * max_tokens + 1.0)).tolist()
        self._exchange_s: list[float] = (
            link_factor * exchange_s(model, hardware, dtype, tensor_parallel_size, self.ranks, tokens)
        ).tolist()
        more = layers.experts_work(tokens * self.ranks)
        self._body_work = [
            (np.array(own) + experts).tolist() for own, experts in zip(self._body_work, more, strict=True)
        ]

    def ranks_s(self, batches: Sequence[RankBatch]) -> float:
        """Seconds of a step in which ranks compute ``batches``; a rank that has none takes part with a dummy."""
        own_s, most_tokens, all_tokens, most_requests = 0.0, 0, 0, 0
        for decodes, context_tokens, chunks, sampled in batches:
            own_s = max(own_s, super().step_s(decodes, context_tokens, chunks, sampled))
            tokens = decodes + sum(tokens for tokens, _ in chunks)
            most_tokens, all_tokens = max(most_tokens, tokens), all_tokens + tokens
            most_requests = max(most_requests, decodes + len(chunks))
        device_s = own_s + self._shared_s(most_tokens, all_tokens)
        return self._ranks_host.seconds(device_s, most_requests)

    def step_s(
        self, decodes: int, decode_context_tokens: int, chunks: Sequence[tuple[int, int]], sampled: int
    ) -> float:
        """See :meth:`StepTimer.step_s`: of one rank, while all others have nothing to do."""
        return self.ranks_s([(decodes, decode_context_tokens, chunks, sampled)])

    def decode_steps_s(self, decodes: int, decode_context_tokens: int, steps: int) -> Floats | list[float]:
        """See :meth:`StepTimer.decode_steps_s`; likewise."""
        own_s = super().decode_steps_s(decodes, decode_context_tokens, steps)
        shared_s = self._shared_s(decodes, decodes)
        if isinstance(own_s, list):
            return self._ranks_host.few_seconds([each_s + shared_s for each_s in own_s], decodes)
        return self._ranks_host.all_seconds(own_s + shared_s, decodes)

    def _shared_s(self, most_tokens: int, all_tokens: int) -> float:
        """Experts and exchange. With graphs, all ranks pad their batch to the largest one, and padding is computed."""
        padded = self._padded[most_tokens]
        rows = self.ranks * padded if most_tokens <= self._graph_tokens else all_tokens
        return self._experts_s[rows] + self._exchange_s[padded]


def exchange_s(
    model: SplitExperts,
    hardware: HardwareProfile,
    dtype: str,
    tensor_parallel_size: int,
    data_parallel_size: int,
    tokens: Floats,
) -> Floats:
    """Seconds, in all layers, that it takes to bring ``tokens`` of each rank to their experts and back.

    Whole experts: an all-to-all there and one back, in which each device sends its share of its rank's tokens to every
    other device that one of their experts is on. Parts of experts: each rank's tokens go to all (an all-gather) and
    their sums come back (a reduce-scatter), which is what an all-reduce does. Within one rank all devices have all
    tokens, and the all-reduce that tensor parallelism has anyway brings them back together.
    """
    if data_parallel_size == 1 or model.moe is None:
        return np.zeros_like(tokens)
    layers, moe = len(model.moe.sparse_layers), model.moe
    token_bytes = model.hidden_size * dtype_bytes_of(dtype)
    if model.whole_experts:
        others = remote_devices(moe.num_experts, moe.experts_per_token, model.expert_devices)
        sent_bytes = tokens / tensor_parallel_size * others * token_bytes
        seconds = 2 * layers * send_s(hardware, model.expert_devices, sent_bytes)
    else:
        seconds = layers * all_reduce_s(hardware, data_parallel_size, data_parallel_size * tokens * token_bytes)
    return np.where(tokens > 0, seconds, 0.0)
