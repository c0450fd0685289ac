"""Every key of the settings, changed, and what a client sees of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from server.conftest import Client
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

    async def test_max_batch_size(self) -> None:
        assert (await engine(FAST))["max_num_seqs"] != 3
        assert (await engine(f"{FAST}inference: {{max_batch_size: 3}}"))["max_num_seqs"] == 3

    async def test_streaming_default(self) -> None:
        async with serving(f"{FAST}inference: {{streaming_default: true}}") as client:
            for fields in ({}, {"stream": None}, {"stream_options": {"include_usage": True}}):
                assert len(await client.chunks(client.chat(max_tokens=3, **fields))) >= 3
            async with client.chat(max_tokens=3, stream=False) as response:
                assert (await response.json())["object"] == "chat.completion"

    async def test_optimize_first_token(self) -> None:
        async def slowest_ttft_ms(text: str) -> float:
            """Of prompts that do not fit into one step and come at the same time."""
            async with (
                serving(f"{MODEL}engine: {{time_scale: .inf, hardware: L4}}\n{text}") as client,
                client.complete(prompt=[[5 + at] * 1500 for at in range(8)], max_tokens=30) as response,
            ):
                return float(response.headers["x-simserve-ttft-ms"])

        assert await slowest_ttft_ms("inference: {optimize_first_token: true}") < await slowest_ttft_ms("")

    async def test_optimize_first_token_is_a_policy(self) -> None:
        assert (await engine(f"{FAST}inference: {{optimize_first_token: true}}"))["policy"] == "sglang"
        text = "engine: {policy: vllm-v0, time_scale: .inf}\nmodels: {default: facebook/opt-125m}\n"
        assert (await engine(f"{text}inference: {{optimize_first_token: true}}"))["policy"] == "vllm-v0"


MODEL = "models: {default: facebook/opt-125m}\n"


class TestEngine:
    @pytest.mark.parametrize(
        ("key", "value", "shown"),
        [
            ("hardware", "L4", {"hardware_profile": "L4"}),
            ("time_scale", 5, {"time_scale": 5.0}),
            ("block_size", 32, {"block_size": 32}),
            ("policy", "sarathi", {"policy": "sarathi"}),
            ("dtype", "float", {"dtype": "float32"}),
            ("tensor_parallel_size", 2, {"tensor_parallel_size": 2}),
            ("num_gpu_blocks", 500, {"kv_blocks": 500}),
            ("max_num_batched_tokens", 4096, {"max_num_batched_tokens": 4096}),
            ("max_model_len", 1000, {"max_model_len": 1000}),
        ],
    )
    async def test_an_option_of_all_models(self, key: str, value: object, shown: dict[str, object]) -> None:
        described = await engine(f"{MODEL}engine: {{{key}: {value}}}")
        assert {name: described[name] for name in shown} == shown

    async def test_memory_gb(self) -> None:
        small, large = [(await engine(f"{MODEL}engine: {{memory_gb: {gb}}}"))["kv_blocks"] for gb in (10, 20)]
        assert 1.9 < large / small < 2.3


SEVERAL = """
engine: {time_scale: .inf}
models:
  available: {a: {path: facebook/opt-125m}, b: {path: facebook/opt-125m}, c: {path: facebook/opt-125m}}
"""


class TestModels:
    async def states(self, client: Client) -> str:
        return " ".join(model["state"] for model in (await client.get("/status"))["models"])

    async def ask(self, client: Client, *names: str) -> None:
        for name in names:
            async with client.complete(model=name, max_tokens=1) as response:
                assert response.status == 200

    async def test_default(self) -> None:
        async with serving(f"{SEVERAL}  default: b\n") as client, client.complete(max_tokens=1) as response:
            assert (await response.json())["model"] == "b"

    async def test_preload(self) -> None:
        for text, expected in (("", "loaded unloaded unloaded"), ("  preload: [b, c]", "unloaded loaded loaded")):
            async with serving(SEVERAL + text) as client:
                assert await self.states(client) == expected

    async def test_max_loaded(self) -> None:
        for text, expected in (("", "loaded loaded loaded"), ("  max_loaded: 2", "unloaded loaded loaded")):
            async with serving(SEVERAL + text) as client:
                await self.ask(client, "a", "b", "c")
                assert await self.states(client) == expected

    async def test_unload_timeout(self) -> None:
        async with serving(f"{SEVERAL}  unload_timeout: 50 ms") as client:
            await self.ask(client, "b")
            for _ in range(300):
                if await self.states(client) == "unloaded unloaded unloaded":
                    return
                await asyncio.sleep(0.01)
        pytest.fail("they stay")

    async def test_load_timeout(self) -> None:
        text = f"{SEVERAL}  load_timeout: 50 ms\n  disk_bandwidth_gb_per_s: 0.1".replace(".inf", "1")
        async with serving(text) as client, client.complete(model="b", max_tokens=1) as response:
            assert (response.status, response.headers["Retry-After"]) == (503, "5")
