"""From tokens to text that may leave: no half characters, and nothing that a stop string may yet take back."""

from __future__ import annotations

from collections.abc import Sequence as Many
from typing import TYPE_CHECKING

from simserve.workload import Tokenizer

if TYPE_CHECKING:
    from simserve.engines.torch.sequence import Sequence

PROMPT_CONTEXT_TOKENS = 6
"""Last tokens of the prompt that the text begins behind: some tokenizers write the first word without its space."""

MOST_HELD_TOKENS = 16
"""A character has four bytes at most; tokens that still give no text then are not going to."""


class AnswerText:
    """The text of one answer in the making."""

    def __init__(self, tokenizer: Tokenizer, sequence: Sequence) -> None:
        self._tokenizer, self._params = tokenizer, sequence.sampling
        self._stream = tokenizer.stream(
            sequence.token_ids[-PROMPT_CONTEXT_TOKENS:], skip_special_tokens=self._params.skip_special_tokens
        )
        self._pending: list[int] = []
        self._held = ""
        self.stopped_by: str | None = None
        """The stop string that the text ended with."""

    def push(self, token_id: int, *, may_stop: bool = True) -> str:
        """One more token; the text that may leave now. Unless it ``may_stop``, stop strings are let through."""
        self._pending.append(token_id)
        piece = self._stream.step(token_id)
        if piece is None:
            if len(self._pending) < MOST_HELD_TOKENS:
                return ""
            piece = self._rest()
        self._pending.clear()
        return self._released(piece, may_stop) if self._params.stop else piece

    def finish(self) -> str:
        """No more tokens come: what was held back, unless a stop string took it."""
        if self.stopped_by is not None:
            return ""
        return self._held + (self._rest() if self._pending else "")

    def _rest(self) -> str:
        return self._tokenizer.text_of(self._pending, skip_special_tokens=self._params.skip_special_tokens)

    def _released(self, piece: str, may_stop: bool) -> str:
        text = self._held + piece
        found = _first_stop(text, self._params.stop) if may_stop else None
        if found is not None:
            start, self.stopped_by = found
            return text[: start + len(self.stopped_by)] if self._params.include_stop else text[:start]
        keep = _unfinished_stop(text, self._params.stop)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _first_stop(text: str, stops: Many[str]) -> tuple[int, str] | None:
    """Start of the stop string that ends first in ``text``, and the string."""
    found = [(at + len(stop), at, stop) for stop in stops if (at := text.find(stop)) >= 0]
    if not found:
        return None
    _, start, stop = min(found)
    return start, stop


def _unfinished_stop(text: str, stops: Many[str]) -> int:
    """Length of the longest end of ``text`` that a stop string begins with."""
    longest = max(len(stop) for stop in stops) - 1
    for length in range(min(longest, len(text)), 0, -1):
        end = text[-length:]
        if any(len(stop) > length and stop.startswith(end) for stop in stops):
            return length
    return 0
