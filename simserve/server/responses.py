"""What clients get: bodies of whole answers, chunks of streamed ones, the list of models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from simserve.engines.base import RequestTiming
from simserve.server.generation import Choice, Plan

DONE = b"data: [DONE]\n\n"


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


def final_usage(plan: Plan, timings: Sequence[RequestTiming | None]) -> dict[str, object]:
    """Usage of a finished answer; of several choices of one prompt, the first decides what was cached."""
    firsts = timings[:: len(plan.choices) // plan.prompts]
    cached = sum(timing.cached_tokens for timing in firsts if timing is not None)
    return usage(plan.prompt_tokens, plan.output_tokens, cached)


def timing_headers(timings: Sequence[RequestTiming | None]) -> dict[str, str]:
    """Simulated time to the first token and to the end, in milliseconds: of several choices, the slowest's."""
    known = [timing for timing in timings if timing is not None]
    if not known:
        return {}
    ttft_s = max(timing.first_token_s - timing.arrival_s for timing in known)
    e2e_s = max(timing.finish_s - timing.arrival_s for timing in known)
    return {"x-simserve-ttft-ms": f"{ttft_s * 1e3:.3f}", "x-simserve-e2e-ms": f"{e2e_s * 1e3:.3f}"}


def whole_body(envelope: Envelope, plan: Plan, timings: Sequence[RequestTiming | None]) -> bytes:
    """The body of an answer that is not streamed."""
    body = envelope.fields(chunk=False)
    body["choices"] = [_whole_choice(choice, chat=envelope.chat) for choice in plan.choices]
    body["usage"] = final_usage(plan, timings)
    return orjson.dumps(body)


def _whole_choice(choice: Choice, *, chat: bool) -> dict[str, object]:
    body: dict[str, object] = {"index": choice.index}
    if chat:
        body["message"] = {"role": "assistant", "content": choice.text, "refusal": None}
    else:
        body["text"] = choice.text
    return body | {"logprobs": None, "finish_reason": choice.finish_reason}


class ChunkWriter:
    """Frames of one choice of a stream; all but a token's text is made once, when the stream begins."""

    def __init__(self, envelope: Envelope, index: int) -> None:
        self._envelope = envelope
        self._index = index
        marker = "\x00"
        frame = self._frame({"content": marker} if envelope.chat else marker, None)
        self._head, self._tail = frame.split(orjson.dumps(marker))

    def opening(self) -> bytes:
        """The frame that says who speaks (chat only); to be sent with the first token, never before it."""
        return self._frame({"role": "assistant", "content": ""}, None) if self._envelope.chat else b""

    def content(self, text: str, usage_so_far: dict[str, object] | None = None) -> bytes:
        """The frame of one token or of several that came out of one step."""
        frame = b"%b%b%b" % (self._head, orjson.dumps(text), self._tail)
        return frame if usage_so_far is None else _with_usage(frame, usage_so_far)

    def finish(self, reason: str, usage_so_far: dict[str, object] | None = None) -> bytes:
        """The frame that says why the choice ended; it carries no text."""
        frame = self._frame({} if self._envelope.chat else "", reason)
        return frame if usage_so_far is None else _with_usage(frame, usage_so_far)

    def _frame(self, content: object, finish_reason: str | None) -> bytes:
        name = "delta" if self._envelope.chat else "text"
        choice = {"index": self._index, name: content, "logprobs": None, "finish_reason": finish_reason}
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
