"""Whole answers: what a client that does not stream gets."""

from __future__ import annotations

import re
from typing import Any

import pytest

from server.conftest import Client
from server.fakes import ScriptedEngine


async def body_of(request: Any) -> dict[str, Any]:
    async with request as response:
        body: dict[str, Any] = await response.json()
        assert response.status == 200, body
        return body


async def test_a_chat_answer_has_exactly_the_tokens_asked_for(client: Client) -> None:
    body = await body_of(client.chat(max_tokens=4, model="test-model"))
    assert body["object"] == "chat.completion"
    assert body["model"] == "test-model"
    assert re.fullmatch(r"chatcmpl-\w+", body["id"])
    assert body["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "w0 w1 w2 w3", "refusal": None},
            "logprobs": None,
            "finish_reason": "length",
        }
    ]
    # "<|user|> say something <|assistant|>" is four words, one token each here.
    assert body["usage"] == {
        "prompt_tokens": 4,
        "completion_tokens": 4,
        "total_tokens": 8,
        "prompt_tokens_details": {"cached_tokens": 16},
    }


async def test_a_completion_has_16_tokens_unless_told_otherwise(client: Client) -> None:
    body = await body_of(client.complete())
    assert body["object"] == "text_completion"
    assert body["usage"]["completion_tokens"] == 16
    assert body["choices"][0]["text"].split() == [f"w{at}" for at in range(16)]


async def test_headers_carry_the_simulated_times_and_the_request_id(client: Client) -> None:
    async with client.chat(max_tokens=3) as response:
        assert response.headers["x-simserve-ttft-ms"] == "10.000"
        assert response.headers["x-simserve-e2e-ms"] == "30.000"
        assert (await response.json())["id"] == "chatcmpl-" + response.headers["x-request-id"]


async def test_a_client_may_choose_the_request_id(client: Client) -> None:
    async with client.session.get("/health", headers={"X-Request-Id": "job-7.a"}) as response:
        assert response.headers["x-request-id"] == "job-7.a"
    async with client.session.get("/health", headers={"X-Request-Id": "no spaces, please"}) as response:
        assert re.fullmatch(r"[0-9a-f]{32}", response.headers["x-request-id"])


async def test_an_open_ended_chat_answer_is_the_same_every_time_and_stops_by_itself(client: Client) -> None:
    answers = [await body_of(client.chat(seed=seed)) for seed in (1, 1, 2)]
    first, again, other = (answer["usage"]["completion_tokens"] for answer in answers)
    assert first == again != other
    assert answers[0]["choices"][0]["finish_reason"] == "stop"


async def test_temperature_zero_does_not_depend_on_the_seed(client: Client) -> None:
    answers = [await body_of(client.chat(seed=seed, temperature=0)) for seed in (1, 2, 3)]
    assert len({answer["usage"]["completion_tokens"] for answer in answers}) == 1


async def test_ignore_eos_without_a_limit_fills_the_context(client: Client) -> None:
    body = await body_of(client.chat(ignore_eos=True))
    assert body["usage"]["total_tokens"] == 256
    assert body["choices"][0]["finish_reason"] == "length"


async def test_the_answer_is_cut_to_what_the_context_leaves(client: Client) -> None:
    body = await body_of(client.chat(max_tokens=256))
    assert body["usage"]["total_tokens"] == 256


async def test_max_completion_tokens_wins(client: Client) -> None:
    body = await body_of(client.chat(max_tokens=9, max_completion_tokens=2))
    assert body["usage"]["completion_tokens"] == 2


async def test_several_choices_count_the_prompt_once(client: Client, engine: ScriptedEngine) -> None:
    body = await body_of(client.chat(n=3, max_tokens=2))
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert (body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]) == (4, 6)
    assert len({request.request_id for request in engine.submitted}) == 3


@pytest.mark.parametrize(
    ("prompt", "prompt_tokens", "choices"),
    [("a b c", 3, 1), (["a b", "c"], 3, 2), ([1, 2, 3, 4], 4, 1), ([[1, 2], [3], [4]], 4, 3)],
)
async def test_prompts_come_as_text_or_tokens_one_or_many(
    client: Client, prompt: object, prompt_tokens: int, choices: int
) -> None:
    body = await body_of(client.complete(prompt=prompt, max_tokens=1))
    assert body["usage"]["prompt_tokens"] == prompt_tokens
    assert [choice["index"] for choice in body["choices"]] == list(range(choices))


class TestStopStrings:
    async def test_text_ends_before_the_stop_string_and_tokens_with_it(self, client: Client) -> None:
        body = await body_of(client.chat(stop="w3", max_tokens=50))
        assert body["choices"][0]["message"]["content"] == "w0 w1 w2 "
        assert body["choices"][0]["finish_reason"] == "stop"
        assert body["usage"]["completion_tokens"] == 4

    async def test_the_one_that_is_complete_first_wins(self, client: Client) -> None:
        body = await body_of(client.chat(stop=["w9", "w2 w3", "w3 w4"], max_tokens=50))
        assert body["choices"][0]["message"]["content"] == "w0 w1 "
        assert body["usage"]["completion_tokens"] == 4

    async def test_one_that_never_comes_changes_nothing(self, client: Client) -> None:
        body = await body_of(client.chat(stop=["nowhere"], max_tokens=5))
        assert body["choices"][0]["finish_reason"] == "length"
        assert body["usage"]["completion_tokens"] == 5

    async def test_it_stays_in_the_text_on_request(self, client: Client) -> None:
        body = await body_of(client.chat(stop="w2", include_stop_str_in_output=True, max_tokens=50))
        assert body["choices"][0]["message"]["content"] == "w0 w1 w2"

    async def test_it_is_not_looked_for_within_min_tokens(self, client: Client) -> None:
        body = await body_of(client.chat(stop=["w1"], min_tokens=5, max_tokens=50))
        assert body["usage"]["completion_tokens"] == 11  # the next "w1" is in "w10"

    async def test_the_engine_is_told_how_short_the_answer_is(self, client: Client, engine: ScriptedEngine) -> None:
        await body_of(client.chat(stop="w3", max_tokens=50))
        assert engine.submitted[0].max_tokens == 50
        assert engine.submitted[0].output_tokens == 4


async def test_null_means_default_for_every_field(client: Client) -> None:
    names = "model max_tokens n stream stream_options seed stop temperature top_p user tools tool_choice logprobs"
    body = await body_of(client.chat(max_completion_tokens=3, **dict.fromkeys(names.split())))
    assert body["usage"]["completion_tokens"] == 3


async def test_unknown_fields_and_whole_floats_are_taken(client: Client) -> None:
    body = await body_of(client.chat(max_tokens=3.0, something_new={"a": 1}, metadata={"run": "7"}))
    assert body["usage"]["completion_tokens"] == 3


async def test_contents_may_be_text_parts_or_null(client: Client) -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "one two"}, {"type": "text", "text": "three"}]},
        {"role": "assistant", "content": None},
        {"role": "user", "content": "four"},
    ]
    body = await body_of(client.chat(messages=messages, max_tokens=1))
    assert body["usage"]["prompt_tokens"] == 4 + 4  # four words, three roles and the opening of the answer


async def test_tools_cost_prompt_tokens(client: Client) -> None:
    tool = {"type": "function", "function": {"name": "look_up", "parameters": {}}}
    plain = await body_of(client.chat(max_tokens=1))
    with_tools = await body_of(client.chat(max_tokens=1, tools=[tool]))
    assert with_tools["usage"]["prompt_tokens"] > plain["usage"]["prompt_tokens"]


async def test_models_are_listed_with_their_window(client: Client) -> None:
    listed = await client.get("/v1/models")
    assert [card["id"] for card in listed["data"]] == ["test-model", "an-alias"]
    assert listed["data"][0]["max_model_len"] == 256
    assert await client.get("/v1/models/an-alias") == listed["data"][1]


async def test_an_alias_answers_in_the_first_name(client: Client) -> None:
    assert (await body_of(client.chat(model="an-alias", max_tokens=1)))["model"] == "test-model"


async def test_health_and_status(client: Client) -> None:
    async with client.session.get("/health") as response:
        assert (response.status, await response.read()) == (200, b"")
    await body_of(client.chat(max_tokens=1))
    status = await client.get("/status")
    assert status["pending_requests"] == 0
    assert status["inflight_batches"] == 0
    assert status["completed_requests"] == 1
    assert status["memory_usage"] == {"total": 1_024_000, "used": 0, "available": 1_024_000}
