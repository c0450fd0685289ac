"""What the section ``inference`` of the settings does, in detail; that every key does something: ``effects``."""

from __future__ import annotations

from typing import Any

from server.serving import FAST, serving


async def card(text: str) -> dict[str, Any]:
    async with serving(text) as client:
        first: dict[str, Any] = (await client.get("/v1/models"))["data"][0]
        return first


async def engine(text: str) -> dict[str, Any]:
    async with serving(text) as client:
        described: dict[str, Any] = (await client.get("/status"))["engine"]
        return described


class TestInference:
    async def test_max_total_tokens(self) -> None:
        assert (await card(FAST))["max_model_len"] == 2048
        async with serving(f"{FAST}inference: {{max_total_tokens: 100}}") as client:
            assert (await client.get("/v1/models"))["data"][0]["max_model_len"] == 100
            async with client.complete(prompt=[5] * 90, max_tokens=50) as response:
                assert (await response.json())["usage"]["completion_tokens"] == 10
            async with client.complete(prompt=[5] * 100) as response:
                assert response.status == 400

    async def test_max_total_tokens_is_no_more_than_the_model_can(self) -> None:
        assert (await card(f"{FAST}inference: {{max_total_tokens: 100000}}"))["max_model_len"] == 2048

    async def test_max_input_tokens(self) -> None:
        async with serving(f"{FAST}inference: {{max_input_tokens: 20}}") as client:
            async with client.complete(prompt=[5] * 20, max_tokens=1) as response:
                assert response.status == 200
            async with client.complete(prompt=[[5], [5] * 21], max_tokens=1) as response:
                error = (await response.json())["error"]
                assert (response.status, error["code"]) == (400, "context_length_exceeded")
                assert "up to 20 tokens. However, your prompt contains 21 input tokens" in error["message"]

    async def test_streaming_default(self) -> None:
        async with serving(f"{FAST}inference: {{streaming_default: true}}") as client:
            for fields in ({}, {"stream": None}, {"stream_options": {"include_usage": True}}):
                assert len(await client.chunks(client.chat(max_tokens=3, **fields))) >= 3
            async with client.chat(max_tokens=3, stream=False) as response:
                assert (await response.json())["object"] == "chat.completion"

    async def test_optimize_first_token_is_a_policy(self) -> None:
        assert (await engine(f"{FAST}inference: {{optimize_first_token: true}}"))["policy"] == "sglang"
        text = "engine: {policy: vllm-v0, time_scale: .inf}\nmodels: {default: facebook/opt-125m}\n"
        assert (await engine(f"{text}inference: {{optimize_first_token: true}}"))["policy"] == "vllm-v0"
