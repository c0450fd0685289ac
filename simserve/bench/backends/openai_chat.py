"""OpenAI's chat completions."""

from __future__ import annotations

from typing import Any

from simserve.bench.backends.base import (
    Answer,
    Ask,
    Backend,
    error_message,
    is_stream,
    json_object,
    media_part,
    read_events,
    take_server_times,
    take_usage,
)
from simserve.bench.backends.events import Event, Response
from simserve.bench.backends.openai_text import shared_fields
from simserve.bench.sample import Sample
from simserve.bench.wire.encode import Body

OUTPUTS = ("content", "reasoning", "reasoning_content", "refusal")


def encode(ask: Ask) -> Body:
    """The body of ``POST /v1/chat/completions``."""
    fields = {
        "model": ask.model,
        "messages": messages(ask.sample),
        "max_completion_tokens": ask.sample.output_tokens,
        **shared_fields(ask),
    }
    if ask.logprobs is not None:
        fields["logprobs"] = True
        fields["top_logprobs"] = ask.logprobs
    return ask.body(fields)


def messages(sample: Sample) -> list[dict[str, Any]]:
    """The sample as messages: a text alone stays a string, which every server takes; media make a list of parts."""
    if sample.messages is not None:
        return sample.messages
    if not sample.media:
        return [{"role": "user", "content": sample.prompt}]
    parts = [{"type": "text", "text": sample.prompt}, *map(media_part, sample.media)]
    return [{"role": "user", "content": parts}]


def read(response: Response) -> Answer:
    """An answer, streamed or whole."""
    if is_stream(response):
        return read_events(response, take)
    body = json_object(response)
    answer = Answer(error=error_message(body.get("error")), is_finished=True, end_s=response.times_s[-1])
    for choice in body.get("choices") or []:
        answer.pieces.append(_output(choice.get("message") or {}))
    take_usage(answer, body.get("usage"))
    take_server_times(answer, body)
    return answer


def take(answer: Answer, event: Event, body: dict[str, Any]) -> None:
    """One chunk: the one that only says who speaks is no output, and neither is one that only ends the answer."""
    so_far = take_usage(answer, body.get("usage"))
    take_server_times(answer, body)
    for choice in body.get("choices") or []:
        delta = choice.get("delta") or {}
        finish = choice.get("finish_reason")
        text = _output(delta)
        is_empty_token = delta.get("content") == "" and "role" not in delta and not finish
        if text or is_empty_token:
            answer.add(event.time_s, text)
            if so_far is not None:
                answer.tokens_at.append(so_far)
        if finish:
            answer.finish(event.time_s)


def _output(message: dict[str, Any]) -> str:
    """Everything in a message or delta that tokens were spent on."""
    texts = [value for name in OUTPUTS if isinstance(value := message.get(name), str)]
    calls = [call.get("function") or {} for call in message.get("tool_calls") or []]
    calls.append(message.get("function_call") or {})
    texts += [str(call.get(name)) for call in calls for name in ("name", "arguments") if call.get(name)]
    return "".join(texts)


BACKEND = Backend(
    "openai-chat", "/v1/chat/completions", ("chat/completions",), encode, read, frozenset({"text", "image", "audio"})
)
