"""The four questions, and what a good answer to each is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from simserve.bench.backends import find_backend
from simserve.bench.measure.outcome import outcome_of
from simserve.bench.server_facts import Server
from simserve.bench.wire.ask import Told, ask
from simserve.bench.wire.encode import Body, encode_request
from simserve.bench.wire.send import ask_once
from simserve.errors import SimServeError

ANSWER_TIMEOUT_S = 120.0
SHOWN = 80

PROMPT = "The capital of France is"
QUESTION = "Say hello in one sentence."
STORY = "Tell me a very short story."


@dataclass(frozen=True)
class Check:
    """The result of one question; ``detail`` is what went wrong, or what else there is to know."""

    name: str
    passed: bool
    asked: str
    answered: str = ""
    tokens: str = ""
    detail: str = ""


def run_checks(server: Server, model: str | None, on_check: Callable[[Check], None]) -> list[Check]:
    """Ask everything; ``on_check`` is told each result as it comes. Without ``model`` the first listed one is asked."""
    checks = [_models(server, model)]
    on_check(checks[0])
    name = model or checks[0].answered.split(",")[0] or "default"
    for question in (_completion, _chat, _stream):
        try:
            check = question(server, name)
        except SimServeError as error:
            check = Check(question.__name__.strip("_"), False, "", detail=str(error))
        checks.append(check)
        on_check(check)
    return checks


def _models(server: Server, model: str | None) -> Check:
    asked = "GET /v1/models"
    try:
        told = _get(server, "/v1/models")
    except SimServeError as error:
        return Check("models", False, asked, detail=str(error))
    body = told.json
    cards = body.get("data") if isinstance(body, dict) else None
    names = [str(card.get("id")) for card in cards if isinstance(card, dict)] if isinstance(cards, list) else []
    if told.status != 200 or not names:
        return Check("models", False, asked, detail=f"status {told.status} and no model in the list")
    if model is not None and model not in names:
        return Check("models", False, asked, ", ".join(names), detail=f"{model} is not among them")
    longest = cards[0].get("max_model_len") if isinstance(cards, list) else None
    return Check("models", True, asked, ", ".join(names), detail=f"up to {longest:,} tokens" if longest else "")


def _completion(server: Server, model: str) -> Check:
    body = {"model": model, "prompt": PROMPT, "max_tokens": 16, "temperature": 0}
    told = _post(server, "/v1/completions", body)
    return _whole("completion", PROMPT, told, lambda choice: choice.get("text"))


def _chat(server: Server, model: str) -> Check:
    body = {"model": model, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 32, "temperature": 0}
    told = _post(server, "/v1/chat/completions", body)

    def text(choice: Mapping[str, Any]) -> Any:
        message = choice.get("message") or {}
        return message.get("content") or message.get("reasoning") or message.get("reasoning_content")

    return _whole("chat", QUESTION, told, text)


def _whole(name: str, asked: str, told: Told, text_of: Callable[[Mapping[str, Any]], Any]) -> Check:
    """An answer in one piece must have text and usage."""
    body = told.json if isinstance(told.json, dict) else {}
    choices = body.get("choices")
    text = text_of(choices[0]) if isinstance(choices, list) and choices else None
    usage = body.get("usage")
    if told.status != 200:
        return Check(name, False, asked, detail=f"status {told.status}: {_short(told.body.decode('utf-8', 'replace'))}")
    if not isinstance(text, str) or not text:
        return Check(name, False, asked, detail="the answer has no text")
    if not isinstance(usage, dict) or not usage.get("completion_tokens"):
        return Check(name, False, asked, _short(text), detail="the answer has no usage")
    return Check(name, True, asked, _short(text), f"{usage.get('prompt_tokens')} + {usage['completion_tokens']} tokens")


def _stream(server: Server, model: str) -> Check:
    """A stream must come in several chunks, with usage, and end with [DONE]."""
    fields = {
        "model": model, "messages": [{"role": "user", "content": STORY}], "max_tokens": 32, "temperature": 0,
        "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    backend = find_backend("openai-chat")
    body = Body("application/json", orjson.dumps(fields))
    request = encode_request(0, server.address, backend.path, server.headers, body)
    told = asyncio.run(ask_once(server.address, request, "smoke-0", ANSWER_TIMEOUT_S, insecure=server.insecure))
    raw, outcome = told.raw, outcome_of(told, backend, keep_text=True)
    text, chunks = _short(outcome.text), len(outcome.token_times_s)
    name = "streaming"
    if outcome.failure is not None:
        return Check(name, False, STORY, text, detail=str(outcome.failure))
    if chunks < 2:
        return Check(name, False, STORY, text, detail=f"everything came in {chunks} chunk")
    if b"data: [DONE]" not in raw and b"data:[DONE]" not in raw:
        return Check(name, False, STORY, text, detail="the stream does not end with [DONE]")
    if outcome.output_tokens is None:
        return Check(name, False, STORY, text, detail="the stream has no usage, though it was asked for")
    tokens = f"{outcome.input_tokens} + {outcome.output_tokens} tokens"
    times = f"{chunks} chunks, first after {outcome.ttft_s * 1e3:,.0f} ms, all after {outcome.e2el_s * 1e3:,.0f} ms"
    return Check(name, True, STORY, text, tokens, times)


def _get(server: Server, path: str) -> Told:
    return ask(server.address, path, headers=server.headers, insecure=server.insecure, timeout_s=ANSWER_TIMEOUT_S)


def _post(server: Server, path: str, body: Mapping[str, Any]) -> Told:
    return ask(server.address, path, body, server.headers, insecure=server.insecure, timeout_s=ANSWER_TIMEOUT_S)


def _short(text: str) -> str:
    """``text`` in one line that fits a screen."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"
