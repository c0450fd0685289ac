"""What clients get: bodies of whole answers, chunks of streamed ones, the list of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from simserve.server.plans import Piece, Plan
from simserve.server.streams import Answer, Ended

DONE = b"data: [DONE]\n\n"
STILL_GOING_ON: Mapping[str, object] = {"finish_reason": None}


@dataclass(frozen=True)
class Envelope:
    """What all bodies and chunks of one answer have in common; ``created_s`` is a Unix time in whole seconds."""

    request_id: str
    model: str
    created_s: int
    chat: bool

    def fields(self, *, chunk: bool) -> dict[str, object]:
        """The first fields of every body (or chunk)."""
        kind = "chat.completion" if self.chat else "text_completion"
        if chunk and self.chat:
            kind = "chat.completion.chunk"
        return {"id": self.request_id, "object": kind, "created": self.created_s, "model": self.model}


def usage(prompt_tokens: int, completion_tokens: int, cached_tokens: int | None = None) -> dict[str, object]:
    """The usage object; ``cached_tokens`` are the prompt tokens that the prefix cache saved, once they are known."""
    counts: dict[str, object] = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
    if cached_tokens is not None:
        counts["prompt_tokens_details"] = {"cached_tokens": cached_tokens}
    return counts


def final_usage(plan: Plan, ended: Sequence[Ended]) -> dict[str, object]:
    """Usage of a finished answer; of several choices of one prompt, the first decides what was cached."""
    firsts = ended[:: len(plan.choices) // plan.prompts]
    cached = sum(one.timing.cached_tokens for one in firsts if one.timing is not None)
    return usage(plan.prompt_tokens, sum(one.tokens for one in ended), cached)


def timing_headers(ended: Sequence[Ended]) -> dict[str, str]:
    """The engine's time to the first token and to the end, in milliseconds: of several choices, the slowest's."""
    known = [one.timing for one in ended if one.timing is not None]
    if not known:
        return {}
    ttft_s = max(timing.first_token_s - timing.arrival_s for timing in known)
    e2e_s = max(timing.finish_s - timing.arrival_s for timing in known)
    return {"x-simserve-ttft-ms": f"{ttft_s * 1e3:.3f}", "x-simserve-e2e-ms": f"{e2e_s * 1e3:.3f}"}


def whole_body(envelope: Envelope, plan: Plan, answers: Sequence[Answer]) -> bytes:
    """The body of an answer that is not streamed."""
    body = envelope.fields(chunk=False)
    body["choices"] = [_whole_choice(answer, chat=envelope.chat) for answer in answers]
    body["usage"] = final_usage(plan, answers)
    return orjson.dumps(body)


def _whole_choice(answer: Answer, *, chat: bool) -> dict[str, object]:
    said: dict[str, object] = (
        {"message": {"role": "assistant", "content": answer.text, "refusal": None}} if chat else {"text": answer.text}
    )
    reasons = _reasons(answer.finish_reason, answer.stop_reason)
    return {"index": answer.index, **said, "logprobs": answer.logprobs, **reasons}


def _reasons(finish_reason: str | None, stop_reason: str | int | None) -> dict[str, object]:
    """vLLM's ``stop_reason``, what ended the answer, only where there is one: OpenAI has no such field."""
    reasons: dict[str, object] = {"finish_reason": finish_reason}
    return reasons if stop_reason is None else {**reasons, "stop_reason": stop_reason}


class ChunkWriter:
    """Frames of one choice of a stream; all but a token's text is made once, when the stream begins."""

    def __init__(self, envelope: Envelope, index: int) -> None:
        self._envelope = envelope
        self._index = index
        marker = "\x00"
        frame = self._frame({"content": marker} if envelope.chat else marker)
        self._head, self._tail = frame.split(orjson.dumps(marker))

    def opening(self) -> bytes:
        """The frame that says who speaks (chat only); to be sent with the first token, never before it."""
        return self._frame({"role": "assistant", "content": ""}) if self._envelope.chat else b""

    def content(self, piece: Piece, usage_so_far: dict[str, object] | None = None) -> bytes:
        """The frame of one token or of several that came out of one step; nothing if there is nothing to tell yet."""
        if piece.logprobs is not None:
            said = {"content": piece.text} if self._envelope.chat else piece.text
            frame = self._frame(said, logprobs=piece.logprobs)
        elif piece.text:
            frame = b"%b%b%b" % (self._head, orjson.dumps(piece.text), self._tail)
        else:
            return b""
        return frame if usage_so_far is None else _with_usage(frame, usage_so_far)

    def finish(self, piece: Piece, usage_so_far: dict[str, object] | None = None) -> bytes:
        """The frame that says why the choice ended; it carries no text."""
        reasons = _reasons(piece.finish_reason, piece.stop_reason)
        frame = self._frame({} if self._envelope.chat else "", reasons=reasons)
        return frame if usage_so_far is None else _with_usage(frame, usage_so_far)

    def _frame(
        self,
        content: object,
        logprobs: Mapping[str, Any] | None = None,
        reasons: Mapping[str, object] = STILL_GOING_ON,
    ) -> bytes:
        name = "delta" if self._envelope.chat else "text"
        choice = {"index": self._index, name: content, "logprobs": logprobs, **reasons}
        return _event(self._envelope.fields(chunk=True) | {"choices": [choice]})


def usage_frame(envelope: Envelope, counts: dict[str, object]) -> bytes:
    """The extra frame of ``stream_options.include_usage``: no choices, only usage."""
    return _event(envelope.fields(chunk=True) | {"choices": [], "usage": counts})


def _event(body: dict[str, object]) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(body)


def _with_usage(frame: bytes, counts: dict[str, object]) -> bytes:
    return b'%b,"usage":%b}\n\n' % (frame[: -len(b"}\n\n")], orjson.dumps(counts))


def model_card(
    name: str, root: str, created_s: int, max_model_len: int, parent: str | None = None
) -> dict[str, object]:
    """One entry of ``GET /v1/models``; clients read the context window from ``max_model_len``.

    ``root`` is what is behind the name, ``parent`` the model that an adapter belongs to.
    """
    return {
        "id": name,
        "object": "model",
        "created": created_s,
        "owned_by": "simserve",
        "root": root,
        "parent": parent,
        "max_model_len": max_model_len,
    }
