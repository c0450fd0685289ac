"""What clients get: bodies of whole answers, chunks of streamed ones, the list of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import orjson

from simserve.server.plans import Choice, Piece, Plan, Tells, ToolDelta
from simserve.server.streams import Answer, Ended

DONE = b"data: [DONE]\n\n"
TIMES_IN_HEADERS = tuple((f"{name}_ms", f"x-simserve-{name}-ms") for name in ("queue", "ttft", "tpot", "e2e"))
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


def usage(
    prompt_tokens: int,
    completion_tokens: int,
    cached_tokens: int | None = None,
    *,
    audio_tokens: int = 0,
    reasoning_tokens: int = 0,
) -> dict[str, object]:
    """The usage object; ``cached_tokens`` are the prompt tokens that the prefix cache saved, once they are known."""
    counts: dict[str, object] = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
    if cached_tokens is not None:
        details = {"cached_tokens": cached_tokens}
        counts["prompt_tokens_details"] = details | ({"audio_tokens": audio_tokens} if audio_tokens else {})
    if reasoning_tokens:
        counts["completion_tokens_details"] = {"reasoning_tokens": reasoning_tokens}
    return counts


def final_usage(plan: Plan, ended: Sequence[Ended]) -> dict[str, object]:
    """Usage of a finished answer; of several choices of one prompt, the first decides what was cached."""
    firsts = ended[:: len(plan.choices) // plan.prompts]
    cached = sum(one.timing.cached_tokens for one in firsts if one.timing is not None)
    tokens = sum(one.tokens for one in ended)
    reasoning_tokens = sum(one.reasoning_tokens for one in ended)
    return usage(plan.prompt_tokens, tokens, cached, audio_tokens=plan.audio_tokens, reasoning_tokens=reasoning_tokens)


def timing_headers(ended: Sequence[Ended]) -> dict[str, str]:
    """The engine's times in milliseconds: of several choices, the slowest's; preemptions of all together."""
    known = [timing_metrics(one) for one in ended if one.timing is not None]
    if not known:
        return {}
    headers = {}
    for name, header in TIMES_IN_HEADERS:
        all_ms = [times[name] for times in known if name in times]
        if all_ms:
            headers[header] = f"{max(all_ms):.3f}"
    headers["x-simserve-preemptions"] = str(sum(int(times["preemptions"]) for times in known))
    return headers


def timing_metrics(ended: Ended) -> dict[str, float]:
    """The engine's times of one choice: points in time on its clock in seconds, durations in milliseconds.

    TPOT is what it is in every output, (last - first token) / (tokens - 1); one token has none.
    """
    timing = ended.timing
    if timing is None:
        return {}
    metrics = {
        "arrival_s": timing.arrival_s,
        "scheduled_s": timing.scheduled_s,
        "first_token_s": timing.first_token_s,
        "finish_s": timing.finish_s,
        "queue_ms": (timing.scheduled_s - timing.arrival_s) * 1e3,
        "ttft_ms": (timing.first_token_s - timing.arrival_s) * 1e3,
        "e2e_ms": (timing.finish_s - timing.arrival_s) * 1e3,
        "cached_tokens": timing.cached_tokens,
        "preemptions": timing.preemptions,
    }
    if ended.tokens > 1:
        metrics["tpot_ms"] = (timing.finish_s - timing.first_token_s) / (ended.tokens - 1) * 1e3
    return metrics


def whole_body(envelope: Envelope, plan: Plan, answers: Sequence[Answer]) -> bytes:
    """The body of an answer that is not streamed."""
    body = envelope.fields(chunk=False)
    body["choices"] = choices = [_whole_choice(answer, chat=envelope.chat) for answer in best(plan, answers)]
    body["usage"] = final_usage(plan, answers)
    if plan.tells is not None:
        _tell_of_tokens(body, choices, plan, plan.tells, best(plan, answers), chat=envelope.chat)
    return orjson.dumps(body)


def _tell_of_tokens(
    body: dict[str, object],
    choices: Sequence[dict[str, object]],
    plan: Plan,
    tells: Tells,
    answers: Sequence[Answer],
    *,
    chat: bool,
) -> None:
    """Add what vLLM has of the prompt, to a chat's body or to each of a completion's choices, and of the answer."""
    for at, (choice, answer) in enumerate(zip(choices, answers, strict=True)):
        prompt = at * plan.prompts // len(answers)
        of_prompt = body if chat else choice
        if tells.token_ids:
            choice["token_ids"] = answer.token_ids
            first = plan.choices[prompt * len(plan.choices) // plan.prompts]
            of_prompt["prompt_token_ids"] = list(first.sequence.prompt_token_ids)
        if tells.prompt_logprobs is not None:
            of_prompt["prompt_logprobs"] = tells.prompt_logprobs[prompt]


def best(plan: Plan, answers: Sequence[Answer]) -> Sequence[Answer]:
    """Of the answers to each prompt those that are told, numbered anew: all of them, or the likeliest."""
    if plan.returned is None:
        return answers
    each = len(answers) // plan.prompts
    kept: list[Answer] = []
    for first in range(0, len(answers), each):
        ranked = sorted(range(first, first + each), key=lambda at: -plan.choices[at].score)
        kept += [replace(answers[at], index=len(kept) + rank) for rank, at in enumerate(ranked[: plan.returned])]
    return kept


def message_of(answer: Answer) -> dict[str, object]:
    """The assistant's message; what it does not have is left out, but for its content, which is null in its place."""
    message: dict[str, object] = {"role": "assistant", "content": answer.text, "refusal": None}
    if answer.reasoning:
        message |= _reasoning(answer.reasoning)
    if answer.calls:
        message |= {"content": answer.text or None, "tool_calls": [_whole_call(call) for call in answer.calls]}
    return message


def _reasoning(text: str) -> dict[str, object]:
    """By both names that clients know: vLLM's, and the one that it had before, which is DeepSeek's."""
    return {"reasoning": text, "reasoning_content": text}


def _whole_call(call: ToolDelta) -> dict[str, object]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _call_delta(call: ToolDelta) -> dict[str, object]:
    if call.id is None:
        return {"index": call.index, "function": {"arguments": call.arguments}}
    return {"index": call.index, **_whole_call(call)}


def _whole_choice(answer: Answer, *, chat: bool) -> dict[str, object]:
    said: dict[str, object] = {"message": message_of(answer)} if chat else {"text": answer.text}
    reasons = _reasons(answer.finish_reason, answer.stop_reason)
    return {"index": answer.index, **said, "logprobs": answer.logprobs, **reasons}


def _reasons(finish_reason: str | None, stop_reason: str | int | None) -> dict[str, object]:
    """vLLM's ``stop_reason``, what ended the answer, only where there is one: OpenAI has no such field."""
    reasons: dict[str, object] = {"finish_reason": finish_reason}
    return reasons if stop_reason is None else {**reasons, "stop_reason": stop_reason}


class ChunkWriter:
    """Frames of one choice of a stream; all but a token's text is made once, when the stream begins."""

    def __init__(self, envelope: Envelope, index: int, usage_before: dict[str, object] | None = None) -> None:
        self._envelope = envelope
        self._index = index
        self._usage_before = usage_before
        """What the first frame says of usage, where each frame does."""
        marker = "\x00"
        frame = self._frame({"content": marker} if envelope.chat else marker)
        self._head, self._tail = frame.split(orjson.dumps(marker))

    def opening(self) -> bytes:
        """The frame that says who speaks (chat only); to be sent with the first token, never before it."""
        if not self._envelope.chat:
            return b""
        frame = self._frame({"role": "assistant", "content": ""})
        return frame if self._usage_before is None else _with_usage(frame, self._usage_before)

    def text(self, text: str) -> bytes:
        """The frame of one token of which there is nothing to say but its text."""
        return b"%b%b%b" % (self._head, orjson.dumps(text), self._tail)

    def content(self, piece: Piece, usage_so_far: dict[str, object] | None = None) -> bytes:
        """The frame of one token or of several that came out of one step; nothing if there is nothing to tell yet."""
        if piece.reasoning or piece.calls or piece.logprobs is not None:
            frame = self._frame(self._said(piece), piece)
        elif piece.text:
            frame = self.text(piece.text)
        else:
            return b""
        return frame if usage_so_far is None else _with_usage(frame, usage_so_far)

    @property
    def ends_with_text(self) -> bool:
        """Whether one frame tells the last tokens and the end; see :meth:`last`."""
        return not self._envelope.chat

    def last(self, piece: Piece, usage_so_far: dict[str, object] | None = None) -> bytes:
        """The frames of the last tokens, and of why the choice ended.

        A chat says that in a frame without text, as OpenAI does. A completion says it with the last text: to load
        clients (vLLM's among them) each frame of a completion is a token, and one more would be a gap of no time.
        """
        if self._envelope.chat:
            return self.content(piece, usage_so_far) + self._finish(piece, usage_so_far)
        return self._finish(piece, usage_so_far, piece.text)

    def _said(self, piece: Piece) -> object:
        """The delta, or the text, of all that a piece tells."""
        if not self._envelope.chat:
            return piece.text
        delta: dict[str, object] = _reasoning(piece.reasoning) if piece.reasoning else {}
        if piece.calls:
            delta["tool_calls"] = [_call_delta(call) for call in piece.calls]
        return delta | ({"content": piece.text} if piece.text or not delta else {})

    def _finish(self, piece: Piece, usage_so_far: dict[str, object] | None, text: str | None = None) -> bytes:
        """The frame that says why the choice ended; without ``text`` it is a chat's, whose last words were said."""
        reasons = _reasons(piece.finish_reason, piece.stop_reason)
        frame = self._frame({}, reasons=reasons) if text is None else self._frame(text, piece, reasons)
        return frame if usage_so_far is None else _with_usage(frame, usage_so_far)

    def _frame(
        self, content: object, piece: Piece | None = None, reasons: Mapping[str, object] = STILL_GOING_ON
    ) -> bytes:
        """One frame; ``piece`` are the tokens in it, if there are any of which more is told than their text."""
        name = "delta" if self._envelope.chat else "text"
        logprobs = None if piece is None else piece.logprobs
        choice = {"index": self._index, name: content, "logprobs": logprobs, **reasons, **self._of_tokens(piece)}
        return _event(self._envelope.fields(chunk=True) | {"choices": [choice]})

    def _of_tokens(self, piece: Piece | None) -> Mapping[str, object]:
        """What else a frame of ``piece`` tells of its tokens."""
        return {}


class TokenIdWriter(ChunkWriter):
    """The same with vLLM's ``token_ids`` in each chunk, and those of the prompt in the first."""

    def __init__(
        self, envelope: Envelope, index: int, prompt_token_ids: Sequence[int], usage_before: dict[str, object] | None
    ) -> None:
        super().__init__(envelope, index, usage_before)
        self._prompt: dict[str, object] = {"prompt_token_ids": list(prompt_token_ids)}

    def opening(self) -> bytes:
        """See :meth:`ChunkWriter.opening`."""
        frame = super().opening()
        return _with_fields(frame, self._prompt) if frame else frame

    def content(self, piece: Piece, usage_so_far: dict[str, object] | None = None) -> bytes:
        """See :meth:`ChunkWriter.content`; tokens of which there is nothing else to tell have a frame, too."""
        frame = self._frame(self._said(piece), piece)
        return frame if usage_so_far is None else _with_usage(frame, usage_so_far)

    def _of_tokens(self, piece: Piece | None) -> Mapping[str, object]:
        if piece is None:
            return {}
        fields: dict[str, object] = {"token_ids": list(piece.token_ids or ())}
        if not self._envelope.chat:
            fields, self._prompt = fields | self._prompt, {}
        return fields


def writer_for(envelope: Envelope, plan: Plan, choice: Choice, *, tells_usage: bool = False) -> ChunkWriter:
    """What makes the frames of ``choice``; ``tells_usage`` says that each has the usage so far."""
    before = usage(plan.prompt_tokens, 0) if tells_usage else None
    if plan.tells is not None and plan.tells.token_ids:
        return TokenIdWriter(envelope, choice.index, choice.sequence.prompt_token_ids, before)
    return ChunkWriter(envelope, choice.index, before)


def closing_frame(envelope: Envelope, extras: Mapping[str, object]) -> bytes:
    """The extra frame at the end of a stream: no choices, only what ``stream_options`` asked for."""
    return _event({**envelope.fields(chunk=True), "choices": [], **extras})


def _event(body: dict[str, object]) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(body)


def _with_usage(frame: bytes, counts: dict[str, object]) -> bytes:
    return _with_fields(frame, {"usage": counts})


def _with_fields(frame: bytes, fields: Mapping[str, object]) -> bytes:
    """A frame of one event with more fields at its end."""
    return b"%b,%b\n\n" % (frame[: -len(b"}\n\n")], orjson.dumps(fields)[1:])


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
