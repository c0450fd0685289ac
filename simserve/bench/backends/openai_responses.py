"""OpenAI's Responses: events with types of their own."""

from __future__ import annotations

from typing import Any

from simserve.bench.backends.base import (
    Answer,
    Ask,
    Backend,
    error_message,
    is_stream,
    json_object,
    read_events,
    take_usage,
)
from simserve.bench.backends.events import Event, Response
from simserve.bench.wire.encode import Body

DELTAS = ("response.output_text.delta", "response.reasoning_text.delta", "response.function_call_arguments.delta")
ENDS = ("response.completed", "response.incomplete")


def encode(ask: Ask) -> Body:
    """The body of ``POST /v1/responses``."""
    fields: dict[str, Any] = {
        "model": ask.model,
        "input": ask.sample.messages or ask.sample.prompt,
        "max_output_tokens": ask.sample.output_tokens,
        "stream": ask.stream,
        "store": False,
    }
    return ask.body(fields | ({"ignore_eos": True} if ask.ignore_eos else {}))


def read(response: Response) -> Answer:
    """An answer, streamed or whole."""
    if is_stream(response):
        return read_events(response, _take)
    body = json_object(response)
    answer = Answer(error=error_message(body.get("error")), is_finished=True, end_s=response.times_s[-1])
    for item in body.get("output") or []:
        answer.pieces += [str(part.get("text", "")) for part in item.get("content") or []]
    take_usage(answer, body.get("usage"))
    return answer


def _take(answer: Answer, event: Event, body: dict[str, Any]) -> None:
    kind = body.get("type")
    if kind in DELTAS:
        answer.add(event.time_s, str(body.get("delta", "")))
    elif kind in ENDS:
        answer.is_finished = True
        take_usage(answer, (body.get("response") or {}).get("usage"))
    elif kind == "error" or kind == "response.failed":
        failed = (body.get("response") or {}).get("error") or body
        answer.error = error_message(failed) or "the response failed"


BACKEND = Backend("openai-responses", "/v1/responses", ("responses",), encode, read, frozenset({"text"}))
