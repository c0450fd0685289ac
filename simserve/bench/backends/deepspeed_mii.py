"""DeepSpeed-MII: OpenAI's completions, but never streamed, and without usage."""

from __future__ import annotations

from typing import Any

from simserve.bench.backends.base import Answer, Ask, Backend, error_message, json_object, take_usage
from simserve.bench.backends.events import BrokenStream, Response
from simserve.bench.wire.encode import Body


def encode(ask: Ask) -> Body:
    """The body of ``POST /v1/completions``."""
    fields: dict[str, Any] = {
        "model": ask.model,
        "prompt": ask.sample.prompt,
        "max_tokens": ask.sample.output_tokens,
        "temperature": 0.01,  # 0 is refused
        "top_p": 1.0,
    }
    return ask.body(fields)


def read(response: Response) -> Answer:
    """A whole answer: text stands in ``choices`` or, in some versions, in a list ``text``."""
    body = json_object(response)
    answer = Answer(error=error_message(body.get("error")), is_finished=True, end_s=response.times_s[-1])
    take_usage(answer, body.get("usage"))
    if answer.error is None:
        choices, texts = body.get("choices"), body.get("text")
        if isinstance(choices, list) and choices:
            answer.pieces = [str(choices[0].get("text", ""))]
        elif isinstance(texts, list) and texts:
            answer.pieces = [str(texts[0])]
        else:
            raise BrokenStream("the answer has neither choices nor text")
    return answer


BACKEND = Backend("deepspeed-mii", "/v1/completions", ("completions",), encode, read, frozenset({"text"}))
