"""The official client with strict validation; what it got is held against OpenAI's published schemas too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import openai
import pytest
from pydantic import BaseModel

from clients.conftest import MODEL, ROOT

PUBLISHED = ROOT.parent / "shared/reference/openai_schemas.json"
MESSAGES: Any = [{"role": "user", "content": "Say something about 3 ships."}]
SCHEMA: Any = {
    "type": "object",
    "properties": {"ships": {"type": "integer"}, "sea": {"enum": ["calm", "rough"]}},
    "required": ["ships", "sea"],
    "additionalProperties": False,
}
TOOLS: Any = [{"type": "function", "function": {"name": "sail", "parameters": SCHEMA, "strict": True}}]
FORM: Any = {"type": "json_schema", "json_schema": {"name": "ships", "schema": SCHEMA, "strict": True}}

CHATS: list[Any] = [
    {},
    {"max_tokens": 5, "n": 2, "seed": 1, "user": "me", "metadata": {"a": "b"}},
    {"logprobs": True, "top_logprobs": 3, "max_completion_tokens": 4},
    {"tools": TOOLS},
    {"tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False},
    {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "sail"}}},
    {"response_format": {"type": "json_object"}},
    {"response_format": FORM},
    {"reasoning_effort": "low"},
    {"extra_body": {"return_token_ids": True, "return_tokens_as_token_ids": True}, "logprobs": True, "max_tokens": 4},
    {"extra_body": {"guided_choice": ["calm", "rough"]}},
    {"stop": [". "], "temperature": 0, "presence_penalty": 0.5, "logit_bias": {"50": -100}},
]


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0, _strict_response_validation=True) as client:
        yield client


@pytest.fixture
def plain(url: str) -> Iterator[openai.OpenAI]:
    """The client's types are narrower than OpenAI's schemas in three places: a completion's chunk before the last has
    no finish reason, an echoed prompt's first token no logprob, and embeddings come packed in base64. There the
    published schemas decide."""
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        yield client


def check_published(name: str, body: Any) -> None:
    """Hold ``body`` against OpenAI's own schema, where the published ones are at hand."""
    if not Path(PUBLISHED).is_file():
        return
    schemas = json.loads(PUBLISHED.read_text())["components"]["schemas"]
    document = json.loads(json.dumps({"components": {"schemas": schemas}, "$ref": f"#/components/schemas/{name}"}))
    jsonschema.Draft202012Validator(document).validate(_without_nulls_where_absent(body))


def _without_nulls_where_absent(body: Any) -> Any:
    return json.loads(body.model_dump_json(exclude_unset=True)) if isinstance(body, BaseModel) else body


@pytest.mark.parametrize("fields", CHATS)
def test_chats_whole(client: openai.OpenAI, fields: Any) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, **fields)
    check_published("CreateChatCompletionResponse", answer)
    assert len(answer.choices) == fields.get("n", 1)
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


@pytest.mark.parametrize("fields", CHATS)
def test_chats_streamed_say_the_same(client: openai.OpenAI, fields: Any) -> None:
    asked = {"model": MODEL, "messages": MESSAGES, **fields}
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **asked))
    for chunk in chunks:
        check_published("CreateChatCompletionStreamResponse", chunk)
    assert chunks[-1].usage is not None
    assert whole.usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    for choice in whole.choices:
        mine = [one for chunk in chunks for one in chunk.choices if one.index == choice.index]
        assert "".join(one.delta.content or "" for one in mine) == (choice.message.content or "")
        calls = [call for one in mine for call in one.delta.tool_calls or []]
        for at, call in enumerate(choice.message.tool_calls or []):
            told = "".join(one.function.arguments or "" for one in calls if one.index == at)  # type: ignore[union-attr]
            assert told == call.function.arguments  # type: ignore[union-attr]
        assert mine[-1].finish_reason == choice.finish_reason


def test_parsed_answers_and_tool_calls(client: openai.OpenAI) -> None:
    class Ships(BaseModel):
        ships: int
        sea: str

    parsed = client.chat.completions.parse(model=MODEL, messages=MESSAGES, response_format=Ships)
    assert parsed.choices[0].message.parsed is not None
    assert parsed.choices[0].message.parsed.ships == 3
    called = client.chat.completions.parse(model=MODEL, messages=MESSAGES, tools=TOOLS, tool_choice="required")
    arguments = called.choices[0].message.tool_calls[0].function.parsed_arguments  # type: ignore[index]
    jsonschema.validate(arguments, SCHEMA)


def test_the_streaming_helper(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model=MODEL, messages=MESSAGES, tools=TOOLS) as stream:
        kinds = {event.type for event in stream}
    assert "tool_calls.function.arguments.done" in kinds
    assert stream.get_final_completion().choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize(
    "fields",
    [{}, {"prompt": ["a", "b"], "max_tokens": 3, "logprobs": 2}, {"echo": True, "logprobs": 1}, {"n": 2, "best_of": 3}],
)
def test_completions(client: openai.OpenAI, plain: openai.OpenAI, fields: Any) -> None:
    asked: Any = {"model": MODEL, "prompt": "Once upon a time", **fields}
    answer = (plain if "echo" in fields else client).completions.create(**asked)
    check_published("CreateCompletionResponse", answer)
    if "best_of" not in fields:
        chunks = list(plain.completions.create(stream=True, **asked))
        for chunk in chunks:
            check_published("CreateCompletionResponse", chunk)
        for choice in answer.choices:
            texts = [one.text for chunk in chunks for one in chunk.choices if one.index == choice.index]
            assert "".join(texts) == choice.text


def test_models_and_embeddings(client: openai.OpenAI, plain: openai.OpenAI) -> None:
    cards = [one.model_dump() for one in client.models.list()]
    check_published("ListModelsResponse", {"object": "list", "data": cards})
    assert client.models.retrieve(MODEL).id == MODEL
    numbers = client.embeddings.create(model=MODEL, input=["a", "b"], encoding_format="float")
    check_published("CreateEmbeddingResponse", numbers)
    packed = plain.embeddings.create(model=MODEL, input=["a", "b"])
    assert packed.data[0].embedding == pytest.approx(numbers.data[0].embedding, abs=1e-6)


def test_errors_are_the_clients_own(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-9", messages=MESSAGES)
    check_published("ErrorResponse", missing.value.response.json())
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(model=MODEL, messages=MESSAGES, temperature=9)
    assert wrong.value.param == "temperature"
