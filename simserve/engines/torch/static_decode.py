"""Decode steps in a few fixed shapes, so that they can be compiled, or recorded once as a CUDA graph and replayed.

A small model's step on a GPU is hundreds of kernels of a few microseconds each; launching them one by one takes longer
than they run. A graph is launched as one.
"""

from __future__ import annotations

from collections.abc import Sequence as Many
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from simserve.engines.torch.attention import KVPages
from simserve.engines.torch.sequence import Sequence
from simserve.engines.torch.transformer import Transformer

MOST_ROWS = 256
"""Steps with more decodes keep a GPU busy without a graph."""

MOST_GATHERED_BYTES = 2**28
"""K and V of one layer, padding included, that a step may gather; more is done in groups, and eagerly."""

WARM_UPS = 2
"""Runs before a graph is recorded, in which libraries allocate what they need."""


class StaticDecode:
    """The model's decode step; rows and pages are padded to powers of two, with rows that nobody reads.

    ``compiled`` runs it through torch.compile, which takes some seconds for the first shapes; on CUDA it is recorded.
    """

    def __init__(self, model: Transformer, pages: KVPages, *, compiled: bool) -> None:
        self._model, self._pages = model, pages
        self._run: Any = torch.compile(self._forward) if compiled else self._forward
        self._records = model.device.type == "cuda"
        self._graph_memory = torch.cuda.graph_pool_handle() if self._records else None  # one step at a time uses it
        self._shapes: dict[tuple[int, int], _Inputs] = {}

    def takes(self, sequences: Many[Sequence]) -> bool:
        """Whether a step of these decodes is of a size for it."""
        rows, pages = self._shape_of(sequences)
        return rows <= MOST_ROWS and rows * pages * self._pages.page_bytes <= MOST_GATHERED_BYTES

    def logits(self, sequences: Many[Sequence]) -> torch.Tensor:
        """Logits [sequences, vocabulary] of the token after the last of each; their K and V are kept."""
        shape = self._shape_of(sequences)
        inputs = self._shapes.get(shape)
        if inputs is None:
            inputs = self._shapes[shape] = _Inputs(*shape, self._pages)
            inputs.fill(sequences)
            if self._records:
                self._record(inputs)
        inputs.fill(sequences)
        if inputs.graph is None:
            inputs.output = self._run(inputs.tensors, self._pages.layers)
        else:
            inputs.graph.replay()
        assert inputs.output is not None
        return inputs.output[: len(sequences)].clone()

    def _shape_of(self, sequences: Many[Sequence]) -> tuple[int, int]:
        """Rows and pages of each."""
        longest = max(len(sequence.token_ids) for sequence in sequences)
        return _power_of_two(len(sequences)), _power_of_two(-(-longest // self._pages.page_tokens))

    def _record(self, inputs: _Inputs) -> None:
        """Run on a stream of its own, as recording asks for, and then record."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                self._run(inputs.tensors, self._pages.layers)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._graph_memory):
            inputs.output = self._run(inputs.tensors, self._pages.layers)
        inputs.graph = graph

    def _forward(self, inputs: tuple[torch.Tensor, ...], layers: list[torch.Tensor]) -> torch.Tensor:
        """The layers' pages are arguments because compilers copy what they find in a closure."""
        token_ids, positions, slots, table, mask = inputs
        attention = _PaddedDecodes(layers, slots, table, mask, self._pages.heads)
        return self._model.logits(self._model.hidden(token_ids, positions, attention))


class _PaddedDecodes:
    """Attention of one token per row over the row's pages, without anything that depends on values."""

    def __init__(
        self, layers: list[torch.Tensor], slots: torch.Tensor, table: torch.Tensor, mask: torch.Tensor, heads: int
    ) -> None:
        self._layers, self._slots, self._table, self._mask, self._heads = layers, slots, table, mask, heads

    def __call__(self, layer: int, qkv: torch.Tensor) -> torch.Tensor:
        cache = self._layers[layer]
        rows, _, head_dim = qkv.shape
        cache.view(-1, *cache.shape[2:]).index_copy_(0, self._slots, qkv[:, self._heads :])
        kv = cache[self._table.flatten()].view(rows, -1, *cache.shape[2:]).transpose(1, 2)
        kv_heads = kv.shape[1] // 2
        q = qkv[:, : self._heads].reshape(rows, kv_heads, -1, head_dim)
        found = F.scaled_dot_product_attention(q, kv[:, :kv_heads], kv[:, kv_heads:], attn_mask=self._mask)
        return found.reshape(rows, self._heads * head_dim)


class _Inputs:
    """The tensors that a step of one shape reads, and where its result lies."""

    def __init__(self, rows: int, pages: int, kv: KVPages) -> None:
        self._page_tokens = kv.page_tokens
        self._shape = (rows, pages)

        def zeros(*shape: int) -> torch.Tensor:
            return torch.zeros(shape, device=kv.device, dtype=torch.int64)

        mask = torch.zeros((rows, 1, 1, pages * kv.page_tokens), device=kv.device, dtype=kv.dtype)
        self.tensors = (zeros(rows), zeros(rows), zeros(rows), zeros(rows, pages), mask)
        self.graph: Any = None
        self.output: torch.Tensor | None = None

    def fill(self, sequences: Many[Sequence]) -> None:
        """Write the step's values; a row of padding is the first token of page 0, which attends to itself."""
        rows, pages = self._shape
        table = np.zeros((rows, pages), dtype=np.int64)
        positions, token_ids = np.zeros(rows, dtype=np.int64), np.zeros(rows, dtype=np.int64)
        for row, sequence in enumerate(sequences):
            table[row, : len(sequence.pages)] = sequence.pages[:pages]
            positions[row], token_ids[row] = len(sequence.token_ids) - 1, sequence.token_ids[-1]
        size = self._page_tokens
        slots = table[np.arange(rows), positions // size] * size + positions % size
        hidden = np.arange(pages * size) > positions[:, None]
        for tensor, values in zip(self.tensors, (token_ids, positions, slots, table), strict=False):
            tensor.copy_(torch.from_numpy(values))
        mask = self.tensors[-1]
        mask.zero_().masked_fill_(torch.from_numpy(hidden).to(mask.device)[:, None, None], -torch.inf)


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()
