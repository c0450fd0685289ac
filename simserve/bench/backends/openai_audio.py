"""OpenAI's transcriptions and translations: a sound goes in as a form, text comes out."""

from __future__ import annotations

from typing import Any

from simserve.bench.backends import openai_chat
from simserve.bench.backends.base import Answer, Ask, Backend, error_message, is_stream, json_object, read_events
from simserve.bench.backends.base import take_usage as note_usage
from simserve.bench.backends.events import Event, Response
from simserve.bench.wire.encode import Body, multipart
from simserve.errors import ConfigError


def encode(ask: Ask) -> Body:
    """The form of ``POST /v1/audio/transcriptions``, with vLLM's fields for usage in the stream."""
    sound = next((media for media in ask.sample.media if media.kind == "audio"), None)
    if sound is None:
        raise ConfigError("openai-audio needs sounds to send; give --dataset-name random-audio or custom_audio")
    fields: dict[str, Any] = {"model": ask.model, "max_completion_tokens": ask.sample.output_tokens, "language": "en"}
    if ask.stream:
        fields |= {"stream": "true", "stream_include_usage": "true", "stream_continuous_usage_stats": "true"}
    fields |= dict(ask.sampling) | dict(ask.extra) | dict(ask.sample.overrides)
    return multipart(
        {name: str(value) for name, value in fields.items()},
        f"audio.{sound.format}", f"audio/{sound.format}", sound.content,
    )  # fmt: skip


def read(response: Response) -> Answer:
    """An answer, streamed (in vLLM's chunks or OpenAI's events) or whole."""
    if is_stream(response):
        return read_events(response, _take)
    body = json_object(response)
    answer = Answer(error=error_message(body.get("error")), is_finished=True, end_s=response.times_s[-1])
    answer.pieces = [str(body.get("text", ""))]
    note_usage(answer, body.get("usage"))
    return answer


def _take(answer: Answer, event: Event, body: dict[str, Any]) -> None:
    kind = body.get("type")
    if kind == "transcript.text.delta":
        answer.add(event.time_s, str(body.get("delta", "")))
    elif kind == "transcript.text.done":
        answer.finish(event.time_s)
        note_usage(answer, body.get("usage"))
    else:
        openai_chat.take(answer, event, body)


BACKEND = Backend(
    "openai-audio", "/v1/audio/transcriptions", ("transcriptions", "translations"), encode, read, frozenset({"audio"})
)
