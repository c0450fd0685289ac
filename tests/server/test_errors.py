"""Whatever a client gets wrong, it gets OpenAI's error object, and the server goes on."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import pytest

from server.conftest import Client
from server.fakes import ScriptedEngine

CHAT = "/v1/chat/completions"


async def error_of(request: Any, status: int) -> dict[str, Any]:
    async with request as response:
        body = await response.json()
        assert response.status == status, body
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["code"] is None or isinstance(body["error"]["code"], str)
    error: dict[str, Any] = body["error"]
    return error


@pytest.fixture(autouse=True)
async def server_goes_on(client: Client) -> Any:
    yield
    async with client.session.get("/health") as response:
        assert response.status == 200


async def test_unknown_model(client: Client) -> None:
    error = await error_of(client.chat(model="gpt-9"), 404)
    assert error["message"] == "The model `gpt-9` does not exist."
    assert (error["param"], error["code"]) == ("model", "model_not_found")
    await error_of(client.session.get("/v1/models/gpt-9"), 404)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'"text"', b'{"messages": NaN}', b'{"messages":"\\ud800"}', b"\xff\xfe", b"[" * 5000],
)
async def test_malformed_json(client: Client, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    error = await error_of(client.session.post(CHAT, data=body, headers=headers), 400)
    assert "JSON" in error["message"]


async def test_another_content_type(client: Client) -> None:
    error = await error_of(client.session.post(CHAT, data="a=1", headers={"Content-Type": "text/plain"}), 400)
    assert "application/json" in error["message"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages.0"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"content": "x"}]}, "messages.0.role"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "3"}, "max_tokens"),
        ({"max_tokens": 2.5}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"n": 129}, "n"),
        ({"n": 0}, "n"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"frequency_penalty": -3}, "frequency_penalty"),
        ({"seed": 2**63}, "seed"),
        ({"stop": ""}, "stop"),
        ({"stop": [1]}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"model": 7}, "model"),
        ({"tools": []}, "tools"),
    ],
)
async def test_wrong_fields_are_named(client: Client, fields: dict[str, Any], param: str) -> None:
    error = await error_of(client.chat(**fields), 400)
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert param in error["message"]


@pytest.mark.parametrize(
    "fields",
    [
        {"stream_options": {"include_usage": True}},
        {"min_tokens": 9, "max_tokens": 3},
        {"tool_choice": "auto"},
        {"tool_choice": 4},
    ],
)
async def test_fields_that_contradict_each_other(client: Client, fields: dict[str, Any]) -> None:
    await error_of(client.chat(**fields), 400)


@pytest.mark.parametrize("prompt", ["", [], [""], [[]], [1, "a"], ["a", [1]], 7, [1, -1], [True], [[1], 2], {"a": 1}])
async def test_wrong_prompts(client: Client, prompt: object) -> None:
    error = await error_of(client.complete(prompt=prompt), 400)
    assert error["param"] == "prompt"


async def test_a_token_that_the_model_does_not_have(client: Client) -> None:
    error = await error_of(client.complete(prompt=[5, 1000]), 400)
    assert "1000" in error["message"]


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"stream_interval": 5}, "stream_interval"),
        ({"kv_transfer_params": {"do_remote_decode": True}}, "kv_transfer_params"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"guided_json": {}, "use_beam_search": True}, "use_beam_search"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"messages": [{"role": "user", "content": [{"type": "file", "file": {}}]}]}, "messages"),
    ],
)
async def test_what_is_not_simulated_is_refused(client: Client, fields: dict[str, Any], param: str) -> None:
    error = await error_of(client.chat(**fields), 400)
    assert "not supported by the simulated engine yet" in error["message"]
    assert error["param"] == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools.0.type"),
        ({"tools": [{}]}, "tools.0.function"),
        ({"tools": [TOOL, TOOL]}, "tools"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": "sometimes"}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "thing"}}}]},
            "tools.0.function.parameters",
        ),
        ({"response_format": {"type": "poem"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": 3}}}},
            "response_format.json_schema.schema",
        ),
        ({"structured_outputs": {"json_object": True, "regex": "a"}}, "structured_outputs"),
        ({"structured_outputs": {"grammar": "root ::= x"}}, "structured_outputs.grammar"),
        ({"logit_bias": {"5": 101}}, "logit_bias"),
        ({"logit_bias": {"1000": 1}}, "logit_bias"),
        ({"logit_bias": {"5": -100}, "response_format": {"type": "json_object"}}, "logit_bias"),
        ({"allowed_token_ids": [1000]}, "allowed_token_ids"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": -1}, "top_logprobs"),
        ({"prompt_logprobs": -1}, "prompt_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"reasoning_effort": "extreme"}, "reasoning_effort"),
        ({"guided_choice": ["a"], "structured_outputs": {"regex": "a"}}, "structured_outputs"),
        ({"cache_salt": ""}, "cache_salt"),
    ],
)
async def test_what_makes_no_sense_in_a_chat(client: Client, fields: dict[str, Any], param: str) -> None:
    error = await error_of(client.chat(**fields), 400)
    assert error["param"] == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"best_of": 1, "n": 2}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"echo": True, "suffix": "the end"}, "suffix"),
        ({"prompt": ["a"] * 200, "n": 128}, "n"),
    ],
)
async def test_what_makes_no_sense_in_a_completion(client: Client, fields: dict[str, Any], param: str) -> None:
    error = await error_of(client.complete(**fields), 400)
    assert error["param"] == param


async def test_fields_that_ask_for_nothing_special_are_fine(client: Client) -> None:
    fields = {"logprobs": False, "top_logprobs": 0, "logit_bias": {}, "response_format": {"type": "text"}}
    async with client.chat(max_tokens=1, **fields) as response:
        assert response.status == 200, await response.text()


async def test_an_answer_longer_than_the_whole_context(client: Client) -> None:
    error = await error_of(client.chat(max_tokens=257), 400)
    assert "maximum context length is 256 tokens" in error["message"]


async def test_a_prompt_longer_than_the_context(client: Client) -> None:
    error = await error_of(client.complete(prompt=[1] * 300), 400)
    assert "maximum context length is 256 tokens" in error["message"]
    assert "300 input tokens" in error["message"]
    assert error["code"] == "context_length_exceeded"


async def test_a_request_that_the_engine_refuses(client: Client, engine: ScriptedEngine) -> None:
    engine.refuse = "the prompt needs more KV blocks than there are"
    error = await error_of(client.chat(), 400)
    assert error["message"] == engine.refuse


async def test_a_failure_of_the_server_itself(
    client: Client, engine: ScriptedEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.break_at = 1
    error = await error_of(client.chat(max_tokens=5), 500)
    assert error["type"] == "server_error"
    assert "the engine broke" in caplog.text


async def test_a_failure_after_the_stream_began_is_an_event(client: Client, engine: ScriptedEngine) -> None:
    engine.break_at = 2
    events = await client.chunks(client.chat(max_tokens=5, stream=True))
    assert events[-1]["error"]["type"] == "server_error"


@pytest.mark.parametrize("choices", [1, 3])
async def test_an_engine_that_gives_a_request_up(client: Client, engine: ScriptedEngine, choices: int) -> None:
    engine.give_up_at = 2
    error = await error_of(client.chat(max_tokens=5, n=choices), 500)
    assert (error["message"], error["type"]) == ("the engine ran out of memory", "server_error")
    events = await client.chunks(client.chat(max_tokens=5, n=choices, stream=True))
    assert events[-1]["error"]["message"] == "the engine ran out of memory"
    assert not engine.running


async def test_an_engine_that_is_gone(client: Client, engine: ScriptedEngine) -> None:
    engine.broken = "the engine has failed and must be restarted"
    error = await error_of(client.chat(), 503)
    assert (error["message"], error["type"]) == (engine.broken, "server_error")


async def test_unknown_path(client: Client) -> None:
    error = await error_of(client.session.get("/v2/nothing"), 404)
    assert "/v2/nothing" in error["message"]


async def test_wrong_method(client: Client) -> None:
    error = await error_of(client.session.get(CHAT), 405)
    assert "POST" in error["message"]


async def test_too_big_a_body(client: Client) -> None:
    huge = io.BytesIO(b'{"prompt":"' + b"x" * (33 * 1024 * 1024) + b'"}')
    headers = {"Content-Type": "application/json"}
    error = await error_of(client.session.post(CHAT, data=huge, headers=headers), 413)
    assert "too large" in error["message"]


async def test_what_is_not_http_gets_a_400_and_leaves_no_traceback(url: str, caplog: pytest.LogCaptureFixture) -> None:
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"\x16\x03\x01 hello\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.0 400 ")
    writer.close()
    assert not caplog.records
