"""A simulated answer as its client is told of it: all of it is known before the first step runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simserve.engines.base import GenerationRequest, TokenEvent
from simserve.server.answers.likelihoods import Likelihoods
from simserve.server.answers.script import Aside, Script
from simserve.server.logprobs import LogprobsWriter, joined
from simserve.server.plans import Piece, merged_calls


@dataclass(frozen=True)
class Spoken:
    """What is told again before the answer: a prompt, its tokens and their text, or the text alone of a message."""

    token_ids: Sequence[int]
    pieces: Sequence[str]


@dataclass
class SimulatedChoice:
    """One sequence to generate and the answer it will have; one piece of text per token.

    ``finish_reason`` is "stop" where the answer ends by itself or at a stop string, "length" where a limit cuts it.
    ``before`` goes with the first piece; ``likelihoods`` and ``logprobs`` are there if they are wanted; ``tells_ids``
    says whether the ids of tokens are.
    """

    index: int
    sequence: GenerationRequest
    script: Script
    finish_reason: str
    stop_reason: str | int | None = None
    before: Spoken | None = None
    likelihoods: Likelihoods | None = None
    logprobs: LogprobsWriter | None = None
    is_silent: bool = False
    score: float = 0.0
    tells_ids: bool = False

    @property
    def pieces(self) -> Sequence[str] | None:
        """The text of each token, where there is nothing to tell but that."""
        plain = not (self.script.asides or self.before or self.logprobs or self.is_silent or self.tells_ids)
        return self.script.pieces if plain else None

    @property
    def reasoning_tokens(self) -> int:
        return self.script.reasoning_tokens

    def read(self, event: TokenEvent) -> Piece:
        """What the event's tokens tell; the reason is the planned one, unless the engine stopped short of it."""
        first, end = event.index, event.index + event.tokens
        script, is_last = self.script, event.finish_reason is not None
        before, self.before = self.before, None
        text = "" if self.is_silent else "".join(script.pieces[first:end])
        asides: list[Aside] = []
        if script.asides:
            asides = [script.asides[at] for at in range(first, end) if at in script.asides]
        return Piece(
            text=("".join(before.pieces) if before else "") + text,
            finish_reason=event.finish_reason if event.finish_reason in (None, "abort") else self.finish_reason,
            logprobs=self._logprobs(first, end, before),
            stop_reason=(event.stop_reason or self.stop_reason) if is_last else None,
            reasoning="".join(aside.reasoning for aside in asides),
            calls=merged_calls([aside.call for aside in asides if aside.call]),
            token_ids=tuple(() if self.is_silent else script.token_ids[first:end]) if self.tells_ids else None,
        )

    def _logprobs(self, first: int, end: int, before: Spoken | None) -> Mapping[str, Any] | None:
        likelihoods, writer = self.likelihoods, self.logprobs
        if likelihoods is None or writer is None:
            return None
        objects = []
        if before is not None and before.token_ids:
            objects.append(writer.object(list(likelihoods.of_prompt(before.token_ids, before.pieces))))
        if first < end and not self.is_silent:
            ids, pieces = self.script.token_ids[first:end], self.script.pieces[first:end]
            objects.append(writer.object(likelihoods.told(ids, pieces, first)))
        return joined(objects) if objects else None
