"""TensorRT-LLM behind Triton: ``POST /v2/models/ensemble/generate_stream``."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from simserve.bench.backends.base import Answer, Ask, Backend, read_events
from simserve.bench.backends.events import Event, Response
from simserve.bench.wire.encode import Body


def encode(ask: Ask) -> Body:
    """The body of ``generate_stream``."""
    fields: dict[str, Any] = {
        "accumulate_tokens": True,
        "text_input": ask.sample.prompt,
        "temperature": 0.0,
        "top_p": 1.0,
        "max_tokens": ask.sample.output_tokens,
        "stream": True,
    }
    if ask.ignore_eos:
        fields["min_length"] = ask.sample.output_tokens
    return ask.body(fields)


def read(response: Response) -> Answer:
    """An answer. No event says that it was the last: the end of the response has to do."""
    answer = read_events(response, _take)
    answer.is_finished = answer.is_finished or response.is_complete
    if len(answer.pieces) > 1 and all(later.startswith(earlier) for earlier, later in pairwise(answer.pieces)):
        answer.pieces = answer.pieces[-1:]  # some versions repeat all text so far in every event
    return answer


def _take(answer: Answer, event: Event, body: dict[str, Any]) -> None:
    if "text_output" in body:
        answer.add(event.time_s, str(body["text_output"]))


BACKEND = Backend(
    "tensorrt-llm", "/v2/models/ensemble/generate_stream", ("generate_stream",), encode, read, frozenset({"text"})
)
