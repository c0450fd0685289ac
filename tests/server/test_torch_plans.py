"""What a request for the torch engine becomes: sampling parameters, limits, and text and logprobs read from events."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest

from simserve.engines.base import SamplingParams, TokenEvent, TokenLogprob
from simserve.errors import RequestError
from simserve.server.errors import ApiError
from simserve.server.messages import Message
from simserve.server.plans import Plan
from simserve.server.protocol import ChatRequest, CompletionRequest, parse
from simserve.server.torch_plans import TorchPlanner
from simserve.server.unsupported import TORCH, refuse_unsupported

VOCABULARY = ["<s>", "once", " upon", " a", " time", "€"]


class Words:
    """A tokenizer of six tokens; the last one is the first byte of a euro sign."""

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        return [0] * add_special_tokens + [1 + at for at, _ in enumerate(text.split())]

    def decode(self, token_ids: Sequence[int]) -> str:
        return "".join(VOCABULARY[one] for one in token_ids)

    def token_bytes(self, token_id: int) -> bytes:
        return b"\xe2" if token_id == 5 else VOCABULARY[token_id].encode()


class Plain:
    """A chat template without Jinja."""

    def render(self, messages: Sequence[Any], tools: object, extras: dict[str, Any]) -> str:
        said = " ".join(message["content"] for message in messages)
        return f"{said}{' with tools' if tools else ''}{' '.join(extras)}"


class Mute:
    """A chat template that says nothing."""

    def render(self, messages: object, tools: object, extras: object) -> str:
        return "once"


class Picky:
    """A chat template that likes nothing."""

    def render(self, messages: object, tools: object, extras: object) -> str:
        raise RequestError("only poems, please")


def planner(**changes: Any) -> TorchPlanner:
    options = {"template": Plain(), "max_model_len": 20, "vocab_size": 6, "defaults": {}}
    return TorchPlanner(Words(), **{**options, **changes})


refuse = partial(refuse_unsupported, unsupported=TORCH)


async def chat(by: TorchPlanner | None = None, **fields: Any) -> Plan:
    by = by or planner()
    body = {"messages": [{"role": "user", "content": "say something"}], **fields}
    return await by.chat(parse(json.dumps(body).encode(), ChatRequest, refuse), "chat-1")


async def complete(by: TorchPlanner | None = None, **fields: Any) -> Plan:
    by = by or planner()
    body = {"prompt": "once upon a", **fields}
    return await by.completion(parse(json.dumps(body).encode(), CompletionRequest, refuse), "cmpl-1")


async def refused(asked: Any) -> ApiError:
    with pytest.raises(ApiError) as refusal:
        await asked
    assert refusal.value.status == 400
    return refusal.value


class TestWhatReachesTheEngine:
    async def test_everything_that_steers_sampling(self) -> None:
        plan = await chat(
            temperature=0.5, top_p=0.9, top_k=40, min_p=0.1, repetition_penalty=1.1, presence_penalty=-1,
            frequency_penalty=2, seed=-3, stop=["a", "b"], include_stop_str_in_output=True, stop_token_ids=[4.0, 5],
            ignore_eos=True, min_tokens=2, max_tokens=9, logprobs=True, top_logprobs=3, logit_bias={"1": -100, "2": 5},
            skip_special_tokens=False,
        )  # fmt: skip
        assert plan.choices[0].sequence.sampling == SamplingParams(
            temperature=0.5, top_p=0.9, top_k=40, min_p=0.1, repetition_penalty=1.1, presence_penalty=-1.0,
            frequency_penalty=2.0, seed=-3, stop=("a", "b"), include_stop=True, stop_token_ids=(4, 5),
            ignore_eos=True, min_tokens=2, logprobs=3, logit_bias={1: -100.0, 2: 5.0}, skip_special_tokens=False,
        )  # fmt: skip
        assert plan.choices[0].sequence.max_tokens == 9

    async def test_what_a_client_leaves_open_is_vllms_default(self) -> None:
        assert (await chat()).choices[0].sequence.sampling == SamplingParams()
        assert (await chat(top_k=-1, temperature=None, stop=[])).choices[0].sequence.sampling == SamplingParams()

    async def test_or_what_the_models_makers_recommend(self) -> None:
        recommending = planner(defaults={"temperature": 0.6, "top_k": 20})
        sampling = (await chat(recommending, top_k=0)).choices[0].sequence.sampling
        assert (sampling.temperature, sampling.top_k) == (0.6, 0)
        assert (await chat(recommending)).choices[0].sequence.sampling.top_k == 20

    async def test_each_choice_of_a_seed_has_its_own_and_the_first_has_that(self) -> None:
        seeds = [choice.sequence.sampling.seed for choice in (await complete(seed=7, n=3)).choices]
        assert seeds == [7, 8, 9]
        assert {choice.sequence.sampling.seed for choice in (await complete(n=3)).choices} == {None}

    async def test_a_limit_beyond_the_context_is_cut_to_it_and_so_is_min_tokens(self) -> None:
        (choice,) = (await complete(max_tokens=20, min_tokens=20)).choices
        assert choice.sequence.max_tokens == choice.sequence.sampling.min_tokens == 16  # 3 words and the first token

    async def test_without_a_limit_a_completion_has_16_tokens_and_a_chat_what_fits(self) -> None:
        assert (await complete(prompt="once")).choices[0].sequence.max_tokens == 16
        assert (await chat()).choices[0].sequence.max_tokens == 18


class TestPrompts:
    async def test_a_message_that_is_gone_on_with(self) -> None:
        going_on = {"add_generation_prompt": False, "continue_final_message": True}
        plan = await chat(**going_on)
        assert plan.prompt_tokens == 2  # "say something", and nothing that the template writes behind it
        with pytest.raises(ApiError, match="leaves the last message out"):
            await chat(
                messages=[{"role": "user", "content": "\u00e4 " * 3 + "x"}], by=planner(template=Mute()), **going_on
            )

    async def test_tokens_are_told_by_their_ids(self) -> None:
        (choice,) = (await chat(return_token_ids=True, logprobs=True, return_tokens_as_token_ids=True)).choices
        event = TokenEvent(0, 1, 0.0, text="once", token_ids=(1,), logprobs=(TokenLogprob(1, -0.5),))
        piece = choice.read(event)
        assert piece.token_ids == (1,)
        assert piece.logprobs is not None
        assert piece.logprobs["content"][0]["token"] == "token_id:1"

    async def test_a_completion_begins_with_the_models_first_token_and_a_chat_as_its_template_says(self) -> None:
        assert (await complete()).choices[0].sequence.prompt_token_ids == [0, 1, 2, 3]
        assert (await chat()).choices[0].sequence.prompt_token_ids == [1, 2]

    async def test_tools_and_arguments_go_to_the_template(self) -> None:
        assert (await chat(tools=[{"type": "function", "function": {"name": "f"}}])).prompt_tokens == 4
        assert (
            await chat(tools=[{"type": "function", "function": {"name": "f"}}], tool_choice="none")
        ).prompt_tokens == 2
        assert (await chat(chat_template_kwargs={"x y": 1})).prompt_tokens == 3

    async def test_a_model_without_a_template_does_not_chat(self) -> None:
        error = await refused(chat(planner(template=None)))
        assert "/v1/completions" in error.message

    async def test_a_template_that_refuses_is_the_clients_error(self) -> None:
        error = await refused(chat(planner(template=Picky())))
        assert (error.message, error.param) == ("only poems, please", "messages")

    async def test_many_prompts_with_many_choices(self) -> None:
        plan = await complete(prompt=["once", "once upon"], n=2)
        assert [choice.index for choice in plan.choices] == [0, 1, 2, 3]
        assert [len(choice.sequence.prompt_token_ids) for choice in plan.choices] == [2, 2, 3, 3]
        assert (plan.prompts, plan.prompt_tokens) == (2, 5)
        assert len({choice.sequence.request_id for choice in plan.choices}) == 4


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"logprobs": 21}, "logprobs"),
        ({"logprobs": -1}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"logit_bias": {"6": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias"),
        ({"logit_bias": {"one": 1}}, "logit_bias"),
        ({"logit_bias": {"1": "much"}}, "logit_bias"),
        ({"logit_bias": [1]}, "logit_bias"),
        ({"stop_token_ids": [6]}, "stop_token_ids"),
        ({"stop_token_ids": [-1]}, "stop_token_ids.0"),
        ({"stop_token_ids": "1"}, "stop_token_ids"),
        ({"min_p": 1.1}, "min_p"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"top_k": -2}, "top_k"),
        ({"echo": "yes"}, "echo"),
        ({"echo": True, "logprobs": 0}, "echo"),
        ({"min_tokens": 17}, "min_tokens"),
        ({"max_tokens": 21}, "max_tokens"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"prompt_logprobs": 1}, "prompt_logprobs"),
        ({"best_of": 2}, "best_of"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"prompt": [6]}, "prompt"),
        ({"prompt": "a " * 20}, "prompt"),
    ],
)
async def test_what_cannot_be_is_named(fields: dict[str, Any], param: str) -> None:
    assert (await refused(complete(**fields))).param == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"top_logprobs": 2}, "top_logprobs"), ({"logprobs": 3}, "logprobs"), ({"tool_choice": "auto"}, "tool_choice")],
)
async def test_what_cannot_be_is_named_in_chats(fields: dict[str, Any], param: str) -> None:
    assert (await refused(chat(**fields))).param == param


class TestReadingEvents:
    async def test_text_and_reasons_are_the_engines(self) -> None:
        (choice,) = (await chat()).choices
        assert choice.read(TokenEvent(0, 2, 0.1, text="once upon")).text == "once upon"
        last = choice.read(TokenEvent(2, 1, 0.2, "stop", text=" a", stop_reason="time"))
        assert (last.text, last.finish_reason, last.stop_reason) == (" a", "stop", "time")

    @pytest.mark.parametrize(("prompt", "said"), [("once upon", "once upon"), ([1, 4], "once time")])
    async def test_an_echoed_prompt_comes_first_and_once(self, prompt: object, said: str) -> None:
        choices = (await complete(prompt=prompt, echo=True, n=2)).choices
        for choice in choices:
            assert choice.read(TokenEvent(0, 1, 0.1, text=" a")).text == f"{said} a"
            assert choice.read(TokenEvent(1, 1, 0.2, text=" time")).text == " time"

    async def test_logprobs_of_a_chat(self) -> None:
        (choice,) = (await chat(logprobs=True, top_logprobs=1)).choices
        entries = (TokenLogprob(1, -0.5, ((4, -0.1),)), TokenLogprob(5, -math.inf, ((2, -0.2),)))
        first, second = choice.read(TokenEvent(0, 2, 0.1, text="once", logprobs=entries)).logprobs["content"]
        assert first == {
            "token": "once",
            "logprob": -0.5,
            "bytes": [111, 110, 99, 101],
            "top_logprobs": [{"token": " time", "logprob": -0.1, "bytes": [32, 116, 105, 109, 101]}],
        }
        assert (second["token"], second["bytes"], second["logprob"]) == ("bytes:\\xe2", [0xE2], -9999.0)

    async def test_logprobs_of_a_completion_count_offsets_through_all_events(self) -> None:
        (choice,) = (await complete(logprobs=1)).choices
        first = choice.read(TokenEvent(0, 1, 0.1, logprobs=(TokenLogprob(1, -0.5, ((4, -0.1),)),))).logprobs
        assert first == {
            "tokens": ["once"],
            "token_logprobs": [-0.5],
            "top_logprobs": [{" time": -0.1, "once": -0.5}],
            "text_offset": [0],
        }
        assert choice.read(TokenEvent(1, 1, 0.2, logprobs=(TokenLogprob(2, 0.0),))).logprobs["text_offset"] == [4]

    async def test_nobody_gets_logprobs_who_did_not_ask(self) -> None:
        (choice,) = (await complete()).choices
        assert choice.read(TokenEvent(0, 1, 0.1, text="once")).logprobs is None


def test_tool_calls_of_a_message_are_objects_with_arguments_read() -> None:
    def call(arguments: str) -> dict[str, Any]:
        return {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}

    message = Message(role="assistant", content=None, tool_calls=[call('{"a": 1}'), call("not JSON")])
    first, second = message.for_template()["tool_calls"]
    assert first["function"]["arguments"] == {"a": 1}
    assert second["function"]["arguments"] == "not JSON"
    answer = Message(role="tool", content="4", tool_call_id="1")
    assert answer.for_template() == {"role": "tool", "content": "4", "tool_call_id": "1"}
