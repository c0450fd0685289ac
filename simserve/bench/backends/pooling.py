"""Servers that give vectors or scores, not tokens: embeddings, pooling, rerank. One JSON answers one request."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson

from simserve.bench.backends.base import Answer, Ask, Backend, error_message, json_object, take_usage
from simserve.bench.backends.events import BrokenStream, Response
from simserve.bench.backends.openai_chat import messages
from simserve.bench.wire.encode import Body

NO_TRUNCATION = -1
"""vLLM's word for: as long as the model can take."""


def encode_embeddings(ask: Ask) -> Body:
    """The body of ``POST /v1/embeddings`` with text, ids, or several of them."""
    return ask.body({"model": ask.model, "input": ask.sample.prompt}, with_sampling=False)


def encode_embeddings_chat(ask: Ask) -> Body:
    """The body of ``POST /v1/embeddings`` with messages, for models that embed images."""
    return ask.body({"model": ask.model, "messages": messages(ask.sample)}, with_sampling=False)


def encode_pooling(ask: Ask) -> Body:
    """The body of vLLM's ``POST /pooling``."""
    fields = {"model": ask.model, "input": ask.sample.prompt, "truncate_prompt_tokens": NO_TRUNCATION}
    return ask.body(fields, with_sampling=False)


def encode_rerank(ask: Ask) -> Body:
    """The body of ``POST /rerank``: a query and the documents to order by it."""
    return ask.body(_rerank_fields(ask), with_sampling=False)


def encode_vllm_rerank(ask: Ask) -> Body:
    """The same with vLLM's field for long documents."""
    return ask.body(_rerank_fields(ask) | {"truncate_prompt_tokens": NO_TRUNCATION}, with_sampling=False)


def _rerank_fields(ask: Ask) -> dict[str, Any]:
    return {"model": ask.model, "query": ask.sample.prompt, "documents": ask.sample.documents}


def read(response: Response) -> Answer:
    """An answer of any of them; its usage may stand in a header where the body is raw bytes."""
    assert response.head is not None
    answer = Answer(is_finished=True, output_tokens=0)
    answer.end_s = response.times_s[-1]
    body = _described(response)
    answer.error = error_message(body.get("error"))
    take_usage(answer, body.get("usage"))
    if answer.error is None and not {"data", "results", "embeddings"} & set(body):
        raise BrokenStream(f"the answer has no data, only {', '.join(body) or 'nothing'}")
    usage = body.get("usage")
    if answer.input_tokens is None and isinstance(usage, dict) and isinstance(usage.get("total_tokens"), int):
        answer.input_tokens = usage["total_tokens"]
    answer.output_tokens = 0
    return answer


def _described(response: Response) -> dict[str, Any]:
    """The JSON that describes the answer: the body, or a header where the vectors come as raw bytes."""
    assert response.head is not None
    metadata = response.head.headers.get("metadata")
    if metadata is None:
        return json_object(response)
    try:
        body = orjson.loads(metadata)
    except orjson.JSONDecodeError:
        raise BrokenStream("the header metadata is no JSON") from None
    return body if isinstance(body, dict) else {}


EMBEDDINGS = Backend(
    "openai-embeddings", "/v1/embeddings", ("embeddings",), encode_embeddings, read,
    frozenset({"text", "ids", "batch"}), is_pooling=True,
)  # fmt: skip
EMBEDDINGS_CHAT = Backend(
    "openai-embeddings-chat", "/v1/embeddings", ("embeddings",), encode_embeddings_chat, read,
    frozenset({"text", "image"}), is_pooling=True,
)  # fmt: skip
POOLING = Backend(
    "vllm-pooling", "/pooling", ("pooling",), encode_pooling, read, frozenset({"text", "ids", "batch"}), is_pooling=True
)
RERANK = Backend("rerank", "/rerank", ("rerank",), encode_rerank, read, frozenset({"documents"}), is_pooling=True)
VLLM_RERANK = replace(RERANK, name="vllm-rerank", encode=encode_vllm_rerank)
