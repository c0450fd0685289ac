"""Logprobs in OpenAI's two shapes: a list of objects for chats, four parallel lists for completions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from simserve.engines.base import TokenLogprob

LEAST_LOGPROB = -9999.0
"""Stands for minus infinity, which JSON does not have; as in OpenAI's API and vLLM."""

TokenBytes = Callable[[int], bytes]
"""The bytes that a token stands for."""


@dataclass(frozen=True)
class Told:
    """One token as clients are told of it: its bytes, its logprob (a prompt's first has none), and the likeliest.

    ``top_ids`` are the ids of the likeliest.
    """

    raw: bytes
    logprob: float | None
    top: tuple[tuple[bytes, float], ...] = ()
    top_ids: tuple[int, ...] = ()


def told(entry: TokenLogprob, token_bytes: TokenBytes) -> Told:
    """What an engine says of a token, with bytes for ids."""
    top = tuple((token_bytes(token_id), logprob) for token_id, logprob in entry.top)
    return Told(token_bytes(entry.token_id), entry.logprob, top, tuple(token_id for token_id, _ in entry.top))


def name_by_id(token_id: int) -> bytes:
    """What a token is called where the client asks for ``return_tokens_as_token_ids``."""
    return b"token_id:%d" % token_id


def prompt_logprobs(token_ids: Sequence[int], tokens: Iterable[Told]) -> Iterator[dict[str, Any] | None]:
    """vLLM's list of a prompt's logprobs: for each token but the first, it and the likeliest in its place, by id."""
    for token_id, one in zip(token_ids, tokens, strict=True):
        yield None if one.logprob is None else _ranked(token_id, one)


def _ranked(token_id: int, one: Told) -> dict[str, Any]:
    own = (token_id, one.raw, one.logprob)
    likeliest = [(other, raw, logprob) for other, (raw, logprob) in zip(one.top_ids, one.top, strict=True)]
    both = [*likeliest, *([] if token_id in one.top_ids else [own])]
    return {
        str(other): {"logprob": max(logprob or 0.0, LEAST_LOGPROB), "rank": rank, "decoded_token": shown(raw)}
        for rank, (other, raw, logprob) in enumerate(both, 1)
    }


class LogprobsWriter(Protocol):
    """Makes OpenAI's object of an answer's logprobs, part by part."""

    def object(self, tokens: Sequence[Told]) -> dict[str, Any]:
        """The object for these tokens alone, which follow those of the object before."""
        ...


class ChatLogprobs:
    """``logprobs`` of a chat choice."""

    def object(self, tokens: Sequence[Told]) -> dict[str, Any]:
        return {"content": [self._entry(one) for one in tokens], "refusal": None}

    def _entry(self, one: Told) -> dict[str, Any]:
        top = [_token(raw, logprob) for raw, logprob in one.top]
        return {**_token(one.raw, one.logprob or 0.0), "top_logprobs": top}


class CompletionLogprobs:
    """``logprobs`` of a completion's choice; ``text_offset`` goes on counting from object to object."""

    def __init__(self) -> None:
        self._offset = 0

    def object(self, tokens: Sequence[Told]) -> dict[str, Any]:
        """See :class:`LogprobsWriter`.

        The sampled token is among the top ones even where it is not one of the likeliest, as OpenAI has it.
        """
        texts = [shown(one.raw) for one in tokens]
        return {
            "tokens": texts,
            "token_logprobs": [None if one.logprob is None else max(one.logprob, LEAST_LOGPROB) for one in tokens],
            "top_logprobs": [self._top(one) for one in tokens],
            "text_offset": [self._offset_before(text) for text in texts],
        }

    @staticmethod
    def _top(one: Told) -> dict[str, float] | None:
        if one.logprob is None:
            return None
        both = (*one.top, (one.raw, one.logprob))
        return {shown(raw): max(logprob, LEAST_LOGPROB) for raw, logprob in both}

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


def _token(raw: bytes, logprob: float) -> dict[str, Any]:
    return {"token": shown(raw), "logprob": max(logprob, LEAST_LOGPROB), "bytes": list(raw)}
