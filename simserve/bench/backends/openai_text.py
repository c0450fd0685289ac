"""OpenAI's plain completions, which vLLM, SGLang, LMDeploy, ScaleLLM and llama.cpp speak too."""

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
    take_server_times,
    take_usage,
)
from simserve.bench.backends.events import Event, Response
from simserve.bench.wire.encode import Body


def encode(ask: Ask) -> Body:
    """The body of ``POST /v1/completions``; fields that OpenAI's own server refuses are sent only when asked for."""
    fields: dict[str, Any] = {
        "model": ask.model,
        "prompt": ask.sample.prompt,
        "max_tokens": ask.sample.output_tokens,
    }
    return ask.body(fields | shared_fields(ask))


def shared_fields(ask: Ask) -> dict[str, Any]:
    """What both kinds of completion have in common."""
    fields: dict[str, Any] = {"stream": ask.stream}
    if ask.stream:
        fields["stream_options"] = {"include_usage": True}
        if ask.continuous_usage:
            fields["stream_options"]["continuous_usage_stats"] = True
    if ask.logprobs is not None:
        fields["logprobs"] = ask.logprobs
    if ask.ignore_eos:
        fields["ignore_eos"] = True
    return fields


def read(response: Response) -> Answer:
    """An answer, streamed or whole."""
    if is_stream(response):
        return read_events(response, _take)
    body = json_object(response)
    answer = Answer(error=error_message(body.get("error")), is_finished=True, end_s=response.times_s[-1])
    answer.pieces = [str(choice.get("text", "")) for choice in body.get("choices") or []]
    take_usage(answer, body.get("usage"))
    take_server_times(answer, body)
    return answer


def _take(answer: Answer, event: Event, body: dict[str, Any]) -> None:
    so_far = take_usage(answer, body.get("usage"))
    take_server_times(answer, body)
    for choice in body.get("choices") or []:
        text = choice.get("text") or ""
        finish = choice.get("finish_reason")
        # Empty text without a reason to finish is a token that completes no character; with one it is just the end.
        if text or not finish:
            answer.add(event.time_s, text)
            if so_far is not None:
                answer.tokens_at.append(so_far)
        if finish:
            answer.finish(event.time_s)


def backend(name: str) -> Backend:
    """The backend under one of its names."""
    return Backend(name, "/v1/completions", ("completions",), encode, read, frozenset({"text", "ids"}))
