"""Logprobs in OpenAI's two shapes: a list of objects for chats, four parallel lists for completions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from simserve.engines.base import TokenLogprob

LEAST_LOGPROB = -9999.0
"""Stands for minus infinity, which JSON does not have; as in OpenAI's API and vLLM."""

TokenBytes = Callable[[int], bytes]
"""The bytes that a token stands for."""


class ChatLogprobs:
    """``logprobs`` of a chat choice."""

    def __init__(self, token_bytes: TokenBytes) -> None:
        self._token_bytes = token_bytes

    def object(self, entries: Sequence[TokenLogprob]) -> dict[str, Any]:
        """The object for these tokens alone."""
        return {"content": [self._entry(one) for one in entries], "refusal": None}

    def _entry(self, entry: TokenLogprob) -> dict[str, Any]:
        top = [self._token(token_id, logprob) for token_id, logprob in entry.top]
        return {**self._token(entry.token_id, entry.logprob), "top_logprobs": top}

    def _token(self, token_id: int, logprob: float) -> dict[str, Any]:
        raw = self._token_bytes(token_id)
        return {"token": shown(raw), "logprob": max(logprob, LEAST_LOGPROB), "bytes": list(raw)}


class CompletionLogprobs:
    """``logprobs`` of a completion's choice; ``text_offset`` goes on counting from object to object."""

    def __init__(self, token_bytes: TokenBytes) -> None:
        self._token_bytes = token_bytes
        self._offset = 0

    def object(self, entries: Sequence[TokenLogprob]) -> dict[str, Any]:
        """The object for these tokens, which follow those of the object before.

        The sampled token is among the top ones even where it is not one of the likeliest, as OpenAI has it.
        """
        tokens = [self._shown(entry.token_id) for entry in entries]
        return {
            "tokens": tokens,
            "token_logprobs": [max(entry.logprob, LEAST_LOGPROB) for entry in entries],
            "top_logprobs": [self._top(entry) for entry in entries],
            "text_offset": [self._offset_before(token) for token in tokens],
        }

    def _top(self, entry: TokenLogprob) -> dict[str, float]:
        both = (*entry.top, (entry.token_id, entry.logprob))
        return {self._shown(token_id): max(logprob, LEAST_LOGPROB) for token_id, logprob in both}

    def _shown(self, token_id: int) -> str:
        return shown(self._token_bytes(token_id))

    def _offset_before(self, token: str) -> int:
        before = self._offset
        self._offset += len(token)
        return before


def shown(raw: bytes) -> str:
    """A token's text; one that ends within a character is shown as ``bytes:\\xe2\\x82``, as OpenAI does."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def joined(objects: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One object of several that follow each other."""
    first = objects[0]
    return {
        name: [item for one in objects for item in one[name]] if isinstance(first[name], list) else first[name]
        for name in first
    }
