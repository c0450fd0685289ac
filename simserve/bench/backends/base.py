"""What a backend is: how a question is put to one kind of server, and how its answer is read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from simserve.bench.backends.events import BrokenStream, Event, Response, events_of
from simserve.bench.sample import Media, Sample
from simserve.bench.wire.encode import Body

JSON = "application/json"

Input = Literal["text", "ids", "batch", "image", "audio", "documents"]


@dataclass(frozen=True)
class Ask:
    """One question: the sample, the model's name at the server, and what the user wants of all requests.

    ``sampling`` holds temperature and its like by OpenAI's names, only those that were given. ``extra`` wins over it,
    the sample's own overrides over both; all are merged key by key, not deeper.
    """

    sample: Sample
    model: str
    stream: bool = True
    ignore_eos: bool = False
    logprobs: int | None = None
    continuous_usage: bool = False
    sampling: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def body(self, fields: dict[str, Any], *, with_sampling: bool = True) -> Body:
        """``fields`` and all that is merged into them, as JSON."""
        sampling = self.sampling if with_sampling else {}
        return Body(JSON, orjson.dumps(fields | dict(sampling) | dict(self.extra) | dict(self.sample.overrides)))


@dataclass
class Answer:
    """What a server said. ``times_s`` are when chunks with output came: the tokens, as far as a client can tell.

    ``tokens_at[i]`` is the number of tokens that chunk ``i`` completes, where the server says it with every chunk.
    ``end_s`` is when the answer was over: its last output or its finish reason. ``is_finished`` says that the server
    said so in its own words, ``error`` what it said instead. Counts are None where it does not tell them.
    """

    times_s: list[float] = field(default_factory=list)
    end_s: float = math.nan
    pieces: list[str] = field(default_factory=list)
    tokens_at: list[int] = field(default_factory=list)
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    is_finished: bool = False
    error: str | None = None
    events: int = 0
    server_queue_s: float = math.nan
    server_ttft_s: float = math.nan

    @property
    def text(self) -> str:
        """All that was generated."""
        return "".join(self.pieces)

    def add(self, time_s: float, text: str) -> None:
        """A chunk with output."""
        self.times_s.append(time_s)
        self.pieces.append(text)
        self.end_s = time_s

    def finish(self, time_s: float) -> None:
        """The server says that nothing more is generated."""
        self.is_finished = True
        self.end_s = time_s


@dataclass(frozen=True)
class Backend:
    """One kind of server.

    ``path`` is where it listens unless told otherwise, ``endings`` what any path to it ends with. ``encode`` puts a
    question, ``read`` takes an answer apart and may raise :class:`BrokenStream`. ``is_pooling`` servers give vectors or
    scores, not tokens.
    """

    name: str
    path: str
    endings: tuple[str, ...]
    encode: Callable[[Ask], Body]
    read: Callable[[Response], Answer]
    takes: frozenset[Input] = frozenset({"text", "ids"})
    is_pooling: bool = False


def json_object(response: Response) -> dict[str, Any]:
    """The body as a JSON object; raises :class:`BrokenStream` for what is none."""
    try:
        body = orjson.loads(response.body)
    except orjson.JSONDecodeError:
        raise BrokenStream(f"the answer is no JSON: {response.body[:60].decode('utf-8', 'replace')!r}") from None
    if not isinstance(body, dict):
        raise BrokenStream(f"the answer is no JSON object: {response.body[:60].decode('utf-8', 'replace')!r}")
    return body


def is_stream(response: Response) -> bool:
    """Whether the server streams, whatever it was asked for."""
    assert response.head is not None
    return "text/event-stream" in response.head.headers.get("content-type", "") or response.body.startswith(b"data:")


def read_events(response: Response, take: Callable[[Answer, Event, dict[str, Any]], None]) -> Answer:
    """An answer from a stream: ``take`` is called with each event and its JSON until one is an error or [DONE]."""
    events = events_of(response)
    answer = Answer() if events else _no_stream(response)
    for event in events:
        answer.events += 1
        if event.data == b"[DONE]":
            answer.is_finished = True
            break
        body = event.json()
        if event.name == "error" or not isinstance(body, dict):
            answer.error = error_message(body) or str(body)
        else:
            answer.error = error_message(body.get("error")) or _as_error_object(body)
        if answer.error is not None:
            break
        assert isinstance(body, dict)
        take(answer, event, body)
    return answer


def _no_stream(response: Response) -> Answer:
    """What stands where events were expected: an error in one piece, or nothing at all, which is an empty stream."""
    if not response.body.strip():
        return Answer()
    error = error_message(json_object(response).get("error"))
    if error is None:
        raise BrokenStream(f"the answer is no event stream: {response.body[:60].decode('utf-8', 'replace')!r}")
    return Answer(error=error)


def error_message(error: object) -> str | None:
    """What an error object, or just a text, says; None if there is no error."""
    if error is None or error == "":
        return None
    if isinstance(error, dict):
        inner = error.get("error", error)
        if isinstance(inner, dict):
            return str(inner.get("message") or inner.get("detail") or inner)
        return str(inner)
    return str(error)


def _as_error_object(body: dict[str, Any]) -> str | None:
    """Some servers stream the error itself: ``{"object": "error", "message": ...}``."""
    return str(body.get("message")) if body.get("object") == "error" else None


def take_usage(answer: Answer, usage: object) -> int | None:
    """Note the counts of a usage object, OpenAI's names or those of its Responses; the output tokens so far."""
    if not isinstance(usage, dict):
        return None
    inputs = usage.get("prompt_tokens", usage.get("input_tokens"))
    outputs = usage.get("completion_tokens", usage.get("output_tokens"))
    if isinstance(inputs, int):
        answer.input_tokens = inputs
    if isinstance(outputs, int):
        answer.output_tokens = outputs
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    if isinstance(details, dict) and isinstance(details.get("cached_tokens"), int):
        answer.cached_tokens = details["cached_tokens"]
    return outputs if isinstance(outputs, int) else None


def take_server_times(answer: Answer, body: dict[str, Any]) -> None:
    """Queue time and TTFT as the server saw them, where it says so (milliseconds in ``metrics``)."""
    metrics = body.get("metrics")
    if not isinstance(metrics, dict):
        return
    if isinstance(metrics.get("queue_time_ms"), int | float):
        answer.server_queue_s = metrics["queue_time_ms"] / 1e3
    if isinstance(metrics.get("time_to_first_token_ms"), int | float):
        answer.server_ttft_s = metrics["time_to_first_token_ms"] / 1e3


def media_part(media: Media) -> dict[str, Any]:
    """An image or a sound as a part of a chat message."""
    from base64 import b64encode

    data = b64encode(media.content).decode()
    if media.kind == "audio":
        return {"type": "input_audio", "input_audio": {"data": data, "format": media.format}}
    return {"type": "image_url", "image_url": {"url": f"data:image/{media.format};base64,{data}"}}
