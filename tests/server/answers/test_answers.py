"""What the words of a simulated answer are, and how long they are: JSON, reasoning, rules, logprobs, sources."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from server.conftest import Client
from server.serving import FAST, serving
from simserve.errors import ConfigError
from simserve.server.answers.habits import is_reasoning_model
from simserve.server.answers.sources import read_dataset
from simserve.workload import load_tokenizer

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
AS_PERSON = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON, "strict": True}}
TOKENIZER = load_tokenizer()


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with serving() as client:
        yield client


async def body_of(request: Any) -> dict[str, Any]:
    async with request as response:
        body: dict[str, Any] = await response.json()
        assert response.status == 200, body
        return body


async def said(client: Client, **fields: Any) -> str:
    return str((await body_of(client.chat(**fields)))["choices"][0]["message"]["content"])


class TestForms:
    async def test_json_object(self, client: Client) -> None:
        assert isinstance(json.loads(await said(client, response_format={"type": "json_object"})), dict)

    async def test_json_schema_whole_and_streamed(self, client: Client) -> None:
        whole = await said(client, response_format=AS_PERSON, seed=5)
        jsonschema.validate(json.loads(whole), PERSON)
        chunks = await client.chunks(client.chat(response_format=AS_PERSON, seed=5, stream=True))
        assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == whole

    async def test_it_ends_by_itself_or_at_the_limit(self, client: Client) -> None:
        whole = await body_of(client.chat(response_format=AS_PERSON, max_tokens=500))
        assert whole["choices"][0]["finish_reason"] == "stop"
        cut = await body_of(client.chat(response_format=AS_PERSON, max_tokens=4))
        assert (cut["choices"][0]["finish_reason"], cut["usage"]["completion_tokens"]) == ("length", 4)
        assert whole["choices"][0]["message"]["content"].startswith(cut["choices"][0]["message"]["content"])

    @pytest.mark.parametrize("fields", [{"min_tokens": 300}, {"ignore_eos": True, "max_tokens": 300}])
    async def test_json_that_must_be_longer_is_still_json(self, client: Client, fields: dict[str, Any]) -> None:
        body = await body_of(client.chat(response_format=AS_PERSON, **fields))
        assert body["usage"]["completion_tokens"] == 300
        jsonschema.validate(json.loads(body["choices"][0]["message"]["content"]), PERSON)

    async def test_structured_outputs(self, client: Client) -> None:
        assert await said(client, structured_outputs={"choice": ["yes", "no"]}) in ("yes", "no")
        assert (await said(client, structured_outputs={"regex": r"[ab]{3}"})).strip("ab") == ""
        jsonschema.validate(json.loads(await said(client, structured_outputs={"json": json.dumps(PERSON)})), PERSON)
        assert json.loads(await said(client, structured_outputs={"json_object": True}))
        async with client.complete(response_format=AS_PERSON, max_tokens=100) as response:
            jsonschema.validate(json.loads((await response.json())["choices"][0]["text"]), PERSON)


class TestReasoning:
    async def test_it_comes_first_and_is_counted(self, client: Client) -> None:
        body = await body_of(client.chat(reasoning_effort="low", seed=1))
        message, usage = body["choices"][0]["message"], body["usage"]
        assert message["reasoning"] == message["reasoning_content"]
        thought = usage["completion_tokens_details"]["reasoning_tokens"]
        assert len(TOKENIZER.encode(message["reasoning"])) == thought
        assert len(TOKENIZER.encode(message["content"])) == usage["completion_tokens"] - thought

    async def test_more_effort_thinks_longer(self, client: Client) -> None:
        async def thought(effort: str) -> float:
            bodies = [await body_of(client.chat(reasoning_effort=effort, seed=seed)) for seed in range(5)]
            return sum(body["usage"]["completion_tokens_details"]["reasoning_tokens"] for body in bodies)

        assert await thought("minimal") < await thought("low") < await thought("medium")

    async def test_it_can_be_left_out_hidden_and_limited(self, client: Client) -> None:
        for fields in ({"reasoning_effort": "none"}, {}, {"chat_template_kwargs": {"enable_thinking": False}}):
            assert "reasoning" not in (await body_of(client.chat(**fields)))["choices"][0]["message"]
        hidden = await body_of(client.chat(reasoning_effort="low", include_reasoning=False))
        assert "reasoning" not in hidden["choices"][0]["message"]
        assert hidden["usage"]["completion_tokens_details"]["reasoning_tokens"] > 5
        thinks = {"chat_template_kwargs": {"enable_thinking": True}, "thinking_token_budget": 7}
        limited = await body_of(client.chat(**thinks))
        assert limited["usage"]["completion_tokens_details"]["reasoning_tokens"] == 7

    async def test_a_limit_may_end_in_the_middle_of_a_thought(self, client: Client) -> None:
        body = await body_of(client.chat(reasoning_effort="medium", max_tokens=5))
        assert body["choices"][0]["message"]["content"] == ""
        assert (body["choices"][0]["finish_reason"], body["usage"]["completion_tokens"]) == ("length", 5)

    @pytest.mark.parametrize(
        ("model", "reasons"),
        [
            ("Qwen/Qwen3-8B", True),
            ("Qwen/Qwen3-4B-Instruct-2507", False),
            ("deepseek-ai/DeepSeek-R1", True),
            ("openai/gpt-oss-20b", True),
            ("meta-llama/Llama-3.1-8B-Instruct", False),
            ("Qwen/Qwen2.5-7B-Instruct", False),
        ],
    )
    def test_models_known_to_reason(self, model: str, reasons: bool) -> None:
        assert is_reasoning_model(model) == reasons

    async def test_the_setting_goes_before_the_name(self) -> None:
        async with serving(f"{FAST}answers: {{reasoning: true}}") as client:
            assert (await body_of(client.chat()))["choices"][0]["message"]["reasoning"]


class TestRulesForWords:
    async def test_banned_tokens_are_not_said(self, client: Client) -> None:
        text = (await body_of(client.complete(max_tokens=300, seed=1)))["choices"][0]["text"]
        common = max(set(TOKENIZER.encode(text)), key=TOKENIZER.encode(text).count)
        rare = min(set(TOKENIZER.encode(text)), key=TOKENIZER.encode(text).count)
        bias = {str(rare): -100, str(common): 50}
        other = (await body_of(client.complete(max_tokens=300, seed=1, logit_bias=bias)))["choices"][0]["text"]
        assert rare not in TOKENIZER.encode(other)
        assert common in TOKENIZER.encode(other)

    async def test_forced_and_allowed_tokens_are_all_that_is_said(self, client: Client) -> None:
        ids = TOKENIZER.encode(" sea")[:1]
        for fields in ({"logit_bias": {str(ids[0]): 100}}, {"allowed_token_ids": ids}):
            body = await body_of(client.complete(max_tokens=5, **fields))
            assert body["choices"][0]["text"] == TOKENIZER.text_of(ids) * 5

    async def test_bad_words(self, client: Client) -> None:
        body = await body_of(client.complete(max_tokens=400, bad_words=["the"]))
        assert "the" not in body["choices"][0]["text"]

    async def test_a_ban_of_everything_is_refused(self, client: Client) -> None:
        async with client.complete(logit_bias={str(token): -100 for token in range(4000)}) as response:
            assert response.status == 400

    async def test_stop_tokens_end_the_answer_and_say_so(self, client: Client) -> None:
        text = (await body_of(client.complete(max_tokens=50)))["choices"][0]["text"]
        ids = TOKENIZER.encode(text)
        stop = ids[7]
        body = await body_of(client.complete(max_tokens=50, stop_token_ids=[stop]))
        count = ids.index(stop) + 1
        assert (body["choices"][0]["finish_reason"], body["choices"][0]["stop_reason"]) == ("stop", stop)
        assert body["usage"]["completion_tokens"] == count
        assert TOKENIZER.encode(body["choices"][0]["text"]) == ids[: count - 1]
        later = await body_of(client.complete(max_tokens=50, stop_token_ids=[stop], min_tokens=count))
        assert later["usage"]["completion_tokens"] > count

    async def test_a_stop_string_is_named(self, client: Client) -> None:
        assert (await body_of(client.chat(stop=[". "])))["choices"][0]["stop_reason"] == ". "


class TestLogprobs:
    async def test_of_a_chat(self, client: Client) -> None:
        body = await body_of(client.chat(logprobs=True, top_logprobs=5, max_tokens=20))
        entries = body["choices"][0]["logprobs"]["content"]
        assert "".join(entry["token"] for entry in entries) == body["choices"][0]["message"]["content"]
        for entry in entries:
            assert bytes(entry["bytes"]).decode() == entry["token"]
            values = [one["logprob"] for one in entry["top_logprobs"]]
            assert len({one["token"] for one in entry["top_logprobs"]}) == 5
            assert values == sorted(values, reverse=True)
            assert sum(map(math.exp, values)) < 1
            assert entry["logprob"] == values[0]

    async def test_a_stream_tells_the_same(self, client: Client) -> None:
        fields = {"logprobs": True, "top_logprobs": 2, "max_tokens": 9, "seed": 4}
        whole = (await body_of(client.chat(**fields)))["choices"][0]["logprobs"]["content"]
        chunks = await client.chunks(client.chat(stream=True, **fields))
        told = [chunk["choices"][0]["logprobs"] for chunk in chunks]
        assert [entry for one in told if one for entry in one["content"]] == whole

    async def test_of_a_completion_and_its_echoed_prompt(self, client: Client) -> None:
        body = await body_of(client.complete(prompt="The old sea", echo=True, logprobs=2, max_tokens=3))
        choice = body["choices"][0]
        logprobs = choice["logprobs"]
        assert "".join(logprobs["tokens"]) == choice["text"]
        assert choice["text"].startswith("The old sea")
        assert logprobs["token_logprobs"][0] is None
        assert all(value < 0 for value in logprobs["token_logprobs"][1:])
        pairs = zip(logprobs["text_offset"], logprobs["tokens"], strict=True)
        assert all(choice["text"][at:].startswith(token) for at, token in pairs)
        assert body["usage"]["completion_tokens"] == 3

    async def test_a_prompt_alone(self, client: Client) -> None:
        for prompt in ("The old sea", TOKENIZER.encode("The old sea")):
            body = await body_of(client.complete(prompt=prompt, echo=True, logprobs=1, max_tokens=0))
            assert (body["choices"][0]["text"], body["usage"]["completion_tokens"]) == ("The old sea", 0)
            assert len(body["choices"][0]["logprobs"]["tokens"]) == body["usage"]["prompt_tokens"]

    async def test_an_echo_streams_too(self, client: Client) -> None:
        chunks = await client.chunks(client.complete(prompt="The old sea", echo=True, max_tokens=3, stream=True))
        assert "".join(chunk["choices"][0]["text"] for chunk in chunks).startswith("The old sea")


class TestBestOf:
    async def test_the_likeliest_are_returned(self, client: Client) -> None:
        every = await body_of(client.complete(n=5, logprobs=0, max_tokens=8, seed=1))
        ranked = sorted(every["choices"], key=lambda choice: -sum(choice["logprobs"]["token_logprobs"]))
        body = await body_of(client.complete(n=2, best_of=5, max_tokens=8, seed=1))
        assert [choice["text"] for choice in body["choices"]] == [choice["text"] for choice in ranked[:2]]
        assert [choice["index"] for choice in body["choices"]] == [0, 1]
        assert body["usage"]["completion_tokens"] == 40


class TestPrompts:
    async def test_a_suffix_is_read_too(self, client: Client) -> None:
        plain = await body_of(client.complete(prompt="once", max_tokens=1))
        more = await body_of(client.complete(prompt="once", suffix="ever after", max_tokens=1))
        extra = len(TOKENIZER.encode("ever after"))
        assert more["usage"]["prompt_tokens"] == plain["usage"]["prompt_tokens"] + extra

    async def test_a_prompt_is_cut_from_the_left(self, client: Client) -> None:
        body = await body_of(client.complete(prompt=[5] * 5000, truncate_prompt_tokens=30, max_tokens=1))
        assert body["usage"]["prompt_tokens"] == 30

    async def test_a_salt_keeps_prefixes_apart(self, client: Client) -> None:
        async def cached(salt: str | None) -> int:
            body = await body_of(client.complete(prompt=[7] * 200, max_tokens=1, cache_salt=salt))
            return int(body["usage"]["prompt_tokens_details"]["cached_tokens"])

        assert [await cached(salt) > 0 for salt in (None, None, "a", "b", "a")] == [False, True, False, False, True]


class TestModes:
    async def test_echo_says_the_question_again(self) -> None:
        async with serving(f"{FAST}answers: {{mode: echo}}") as client:
            body = await body_of(client.chat(max_tokens=100))
            assert body["choices"][0]["message"]["content"] == "say something"
            assert body["choices"][0]["finish_reason"] == "stop"
            assert (await body_of(client.complete(max_tokens=2)))["choices"][0]["finish_reason"] == "length"
            body = await body_of(client.chat(max_tokens=100, ignore_eos=True))
            assert (body["usage"]["completion_tokens"], body["choices"][0]["finish_reason"]) == (100, "length")

    async def test_answers_from_a_file(self, tmp_path: Path) -> None:
        file = tmp_path / "answers.jsonl"
        file.write_text('{"prompt": "say something", "answer": "I am a teapot."}\n{"response": "Any other."}\n')
        async with serving(f"{FAST}answers: {{mode: dataset, dataset: {file}}}") as client:
            assert await said(client) == "I am a teapot."
            async with client.complete() as response:
                assert (await response.json())["choices"][0]["text"] in ("I am a teapot.", "Any other.")

    async def test_lengths_from_a_distribution(self) -> None:
        async with serving(f"{FAST}answers: {{length: 'uniform:10:20'}}") as client:
            for seed in range(5):
                body = await body_of(client.chat(max_tokens=100, seed=seed))
                assert 10 <= body["usage"]["completion_tokens"] <= 20
                assert body["choices"][0]["finish_reason"] == "stop"
            cut = await body_of(client.chat(max_tokens=9))
            assert (cut["usage"]["completion_tokens"], cut["choices"][0]["finish_reason"]) == (9, "length")
            exact = await body_of(client.chat(max_tokens=50, ignore_eos=True))
            assert exact["usage"]["completion_tokens"] == 50

    def test_files_of_answers(self, tmp_path: Path) -> None:
        turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
        for name, text, asked, answer in (
            ("a.txt", "one\n\ntwo\n", "", ("one", "two")),
            ("a.json", json.dumps([{"conversations": turns}]), "Hi", ("Hello",)),
            ("a.jsonl", '{"question": "Q", "output": "A"}', "Q", ("A",)),
        ):
            (tmp_path / name).write_text(text)
            assert read_dataset(tmp_path / name).answer_to(asked, "key") in answer

    @pytest.mark.parametrize(("name", "text"), [("a.txt", "\n"), ("a.json", "{"), ("a.jsonl", '{"a": 1}\n')])
    def test_a_file_without_answers(self, tmp_path: Path, name: str, text: str) -> None:
        (tmp_path / name).write_text(text)
        with pytest.raises(ConfigError, match=name):
            read_dataset(tmp_path / name)
