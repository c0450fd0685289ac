"""Hugging Face's text-generation-inference: ``POST /generate_stream``, one event per token."""

from __future__ import annotations

from typing import Any

from simserve.bench.backends.base import Answer, Ask, Backend, read_events
from simserve.bench.backends.events import Event, Response
from simserve.bench.wire.encode import Body

NEARLY_GREEDY = {"do_sample": True, "temperature": 0.01, "top_p": 0.99}
"""It refuses a temperature of 0."""


def encode(ask: Ask) -> Body:
    """The body of ``POST /generate_stream``; sampling parameters go in among its own ``parameters``."""
    parameters: dict[str, Any] = {
        "max_new_tokens": ask.sample.output_tokens,
        **NEARLY_GREEDY,
        "truncate": ask.sample.input_tokens,
        "details": True,
        **ask.sampling,
    }
    if ask.ignore_eos:
        parameters["ignore_eos_token"] = True
    return ask.body({"inputs": ask.sample.prompt, "parameters": parameters}, with_sampling=False)


def read(response: Response) -> Answer:
    """An answer; the last event carries the whole text, and how many tokens it took if the server says so."""
    answer = read_events(response, _take)
    if answer.output_tokens is None and answer.is_finished:
        answer.output_tokens = len(answer.times_s)  # its protocol: one event per token
    return answer


def _take(answer: Answer, event: Event, body: dict[str, Any]) -> None:
    token = body.get("token")
    if isinstance(token, dict):
        answer.add(event.time_s, "" if token.get("special") else str(token.get("text", "")))
    if body.get("generated_text") is not None:
        answer.finish(event.time_s)
        details = body.get("details")
        if isinstance(details, dict) and isinstance(details.get("generated_tokens"), int):
            answer.output_tokens = details["generated_tokens"]


BACKEND = Backend("tgi", "/generate_stream", ("generate_stream",), encode, read, frozenset({"text"}))
