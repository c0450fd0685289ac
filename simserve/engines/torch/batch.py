"""From a step's requests to the rows of its tensors: token ids, positions, KV slots, and who attends to what."""

from __future__ import annotations

from collections.abc import Sequence as Many

import numpy as np
import numpy.typing as npt
import torch

from simserve.engines.torch.attention import Chunk, KVPages, Piece, StepAttention, decode_pieces
from simserve.engines.torch.sequence import Sequence
from simserve.engines.torch.transformer import Transformer
from simserve.scheduling import PrefillChunk

Integers = npt.NDArray[np.int64]

ROW_BLOCK = 16
"""Steps with a prompt are padded to a multiple of so many rows. oneDNN compiles a product anew for each number of rows,
which takes 10 ms of a step of 60 in float32 and more than the step itself in bfloat16, and forgets the oldest of 1,024.
"""


class Batch:
    """One step in the making. Without ``keep``, no K and V are kept, so that no pages are needed."""

    def __init__(self, pages: KVPages, *, keep: bool = True) -> None:
        self._pages, self._keep = pages, keep
        self._token_ids: list[Integers] = []
        self._positions: list[Integers] = []
        self._slots: list[Integers] = []
        self._pieces: list[Piece] = []
        self._rows, self._has_chunks = 0, False
        self.sampled_rows: list[int] = []
        """Whose hidden state a token is sampled from."""

    def add_decodes(self, sequences: Many[Sequence]) -> None:
        """The last token of each of ``sequences``, longest first."""
        if not sequences:
            return
        positions = np.array([len(sequence.token_ids) - 1 for sequence in sequences])
        last_pages = [
            sequence.pages[at // self._pages.page_tokens] for sequence, at in zip(sequences, positions, strict=True)
        ]
        self._slots.append(np.array(last_pages) * self._pages.page_tokens + positions % self._pages.page_tokens)
        self._token_ids.append(np.array([sequence.token_ids[-1] for sequence in sequences]))
        self._positions.append(positions)
        tables = [sequence.pages for sequence in sequences]
        self._pieces += decode_pieces(self._pages, self._rows, tables, (positions + 1).tolist())
        self.sampled_rows += range(self._rows, self._rows + len(sequences))
        self._rows += len(sequences)

    def add_chunk(self, chunk: PrefillChunk) -> None:
        """The tokens of a prefill chunk; padding that a policy adds to them is left out."""
        sequence, context = chunk.request, chunk.context_tokens
        assert isinstance(sequence, Sequence)
        token_ids = np.array(sequence.token_ids[context : context + chunk.tokens])
        positions = np.arange(context, context + len(token_ids))
        if self._keep:
            page_tokens = self._pages.page_tokens
            self._slots.append(
                np.array(sequence.pages)[positions // page_tokens] * page_tokens + positions % page_tokens
            )
        self._token_ids.append(token_ids)
        self._positions.append(positions)
        self._pieces.append(Chunk(self._pages, self._rows, len(token_ids), context, sequence.pages))
        self._rows += len(token_ids)
        self._has_chunks = True
        if chunk.samples:
            self.sampled_rows.append(self._rows - 1)

    def hidden(self, model: Transformer) -> torch.Tensor:
        """Run ``model`` on the rows: [rows, hidden]."""
        padding = -self._rows % ROW_BLOCK if self._has_chunks else 0
        slots = self._tensor(self._slots, padding) if self._keep else None
        attention = StepAttention(self._pages, slots, self._pieces, padding)
        hidden = model.hidden(self._tensor(self._token_ids, padding), self._tensor(self._positions, padding), attention)
        return hidden[: self._rows]

    def _tensor(self, parts: list[Integers], padding: int) -> torch.Tensor:
        """``parts`` in one, with zeros behind them: token 0 at position 0, kept in page 0, which is nobody's."""
        if padding:
            parts = [*parts, np.zeros(padding, dtype=np.int64)]
        joined = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return torch.from_numpy(joined).to(self._pages.device)
