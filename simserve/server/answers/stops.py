"""Where an answer ends before it is over: at a stop string, or at a stop token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from simserve.server.answers.script import Script


class StopFields(Protocol):
    """The fields of a request that say where to stop."""

    stop: Sequence[str]
    stop_token_ids: Sequence[int]
    include_stop_str_in_output: bool


@dataclass(frozen=True)
class End:
    """The answer has ``tokens`` tokens, and its text the first ``characters``; ``reason`` is what ended it."""

    tokens: int
    characters: int
    reason: str | int

    def apply_to(self, script: Script) -> None:
        """Cut the answer off."""
        at = 0
        script.cut(self.tokens)
        for number, piece in enumerate(script.pieces):
            script.pieces[number] = piece[: max(0, self.characters - at)]
            at += len(piece)


def find_end(script: Script, fields: StopFields, first_token: int) -> End | None:
    """The first stop string or token in the answer's content, None if there is none.

    As in vLLM it counts only if it ends after the first ``first_token`` tokens, and stays out of the text unless
    ``include_stop_str_in_output`` is set.
    """
    ends = [end for end in (_at_string(script, fields, first_token), _at_token(script, fields, first_token)) if end]
    return min(ends, key=lambda end: end.tokens, default=None)


def _at_string(script: Script, fields: StopFields, first_token: int) -> End | None:
    if not fields.stop:
        return None
    text = "".join(script.pieces)
    earliest = len("".join(script.pieces[:first_token])) + 1
    found = [(at + len(stop), at, stop) for stop in fields.stop if (at := _find(text, stop, earliest)) >= 0]
    if not found:
        return None
    end, start, stop = min(found)
    return End(_tokens_to(script.pieces, end), end if fields.include_stop_str_in_output else start, stop)


def _find(text: str, stop: str, earliest_end: int) -> int:
    return text.find(stop, max(0, earliest_end - len(stop)))


def _tokens_to(pieces: Sequence[str], end: int) -> int:
    """How many tokens reach character ``end``."""
    at = 0
    for number, piece in enumerate(pieces):
        if at >= end:
            return number
        at += len(piece)
    return len(pieces)


def _at_token(script: Script, fields: StopFields, first_token: int) -> End | None:
    if not fields.stop_token_ids:
        return None
    stops = frozenset(fields.stop_token_ids)
    for at, token in enumerate(script.token_ids):
        if token in stops and at >= max(first_token, script.reasoning_tokens):
            before = len("".join(script.pieces[:at]))
            keeps = len(script.pieces[at]) if fields.include_stop_str_in_output else 0
            return End(at + 1, before + keeps, token)
    return None
