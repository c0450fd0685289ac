"""Each protocol against a server that speaks it byte for byte: what is asked, and what is read from the answer."""

from __future__ import annotations

import json
import math
from email import message_from_bytes
from typing import Any

import pytest

from bench.asking import outcome
from bench.raw_server import Piece, Received, chunked, raw_server, sse, whole
from simserve.bench.backends import BACKENDS, find_backend
from simserve.bench.measure.outcome import Outcome
from simserve.bench.sample import Media, Sample
from simserve.errors import ConfigError

SAMPLE = Sample("Once upon a time", 4, 3)
USAGE = {"prompt_tokens": 4, "completion_tokens": 3, "total_tokens": 7}
IMAGE = Media("image", "png", b"\x89PNG")
SOUND = Media("audio", "wav", b"RIFF", duration_s=2.0)


async def asked(backend: str, answer: list[Piece], sample: Sample = SAMPLE, **ask: Any) -> tuple[Received, Outcome]:
    """What the server got, and what the client made of its answer; the path is the backend's own."""
    async with raw_server(lambda request: answer) as server:
        one = await outcome(server.url, backend, sample, **ask)
    (request,) = server.received
    return request, one


def text_chunk(text: str, finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
    return {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "choices": [choice]}


def chat_chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def usage_chunk(**more: Any) -> dict[str, Any]:
    return {"id": "1", "object": "text_completion", "created": 1, "model": "m", "choices": [], "usage": USAGE, **more}


def fails_gracefully(one: Outcome, kind: str) -> None:
    assert one.failure is not None
    assert one.failure.kind == kind


class TestPlainCompletions:
    @pytest.mark.parametrize("name", ["openai", "vllm", "sglang", "lmdeploy", "scalellm", "llama.cpp"])
    async def test_what_is_asked_is_what_openai_takes(self, name: str) -> None:
        events = sse(text_chunk(" there"), text_chunk(" was"), text_chunk(" a", "length"), usage_chunk(), "[DONE]")
        request, one = await asked(name, chunked(*events))
        assert (request.method, request.path) == ("POST", "/v1/completions")
        assert request.json == {
            "model": "a-model",
            "prompt": "Once upon a time",
            "max_tokens": 3,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        assert (one.ok, one.text, one.input_tokens, one.output_tokens) == (True, " there was a", 4, 3)
        assert len(one.token_times_s) == 3

    async def test_vllm_ends_the_last_token_and_the_answer_in_one_chunk(self) -> None:
        """Python front end; times of the server ride on the usage chunk."""
        metrics = {"queue_time_ms": 12.5, "time_to_first_token_ms": 80}
        events = sse(text_chunk("a"), text_chunk("b", "stop"), usage_chunk(metrics=metrics), "[DONE]")
        _, one = await asked("vllm", chunked(*events))
        assert (len(one.token_times_s), one.server_queue_s, one.server_ttft_s) == (2, 0.0125, 0.08)

    async def test_a_chunk_that_only_ends_the_answer_is_no_token(self) -> None:
        events = sse(text_chunk("a"), text_chunk("b"), text_chunk("", "length"), usage_chunk(), "[DONE]")
        _, one = await asked("openai", chunked(*events))
        assert len(one.token_times_s) == 2

    async def test_a_token_that_completes_no_character_is_one(self) -> None:
        events = sse(text_chunk("a"), text_chunk(""), text_chunk("\u00e9", "length"), usage_chunk(), "[DONE]")
        _, one = await asked("openai", chunked(*events))
        assert len(one.token_times_s) == 3

    async def test_usage_in_every_chunk_tells_the_tokens_of_each(self) -> None:
        def counted(text: str, so_far: int) -> dict[str, Any]:
            return text_chunk(text) | {"usage": USAGE | {"completion_tokens": so_far}}

        events = sse(counted("a b", 2), counted(" c", 3), text_chunk("", "length"), usage_chunk(), "[DONE]")
        request, one = await asked("vllm", chunked(*events), continuous_usage=True)
        assert request.json["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
        assert list(one.tokens_at) == [2, 3]

    async def test_sglang_says_what_stopped_it(self) -> None:
        last = text_chunk("", "stop")
        last["choices"][0]["matched_stop"] = 128009
        _, one = await asked("sglang", chunked(*sse(text_chunk("a"), last, usage_chunk(), "[DONE]")))
        assert (one.ok, one.text) == (True, "a")

    async def test_llama_cpp_leaves_out_the_last_blank_line(self) -> None:
        events = sse(text_chunk("a"), text_chunk("", "length") | {"timings": {"predicted_n": 1}})
        _, one = await asked("llama.cpp", chunked(*events, b"data: [DONE]"))
        assert (one.ok, one.text, one.output_tokens) == (True, "a", None)

    async def test_llama_cpp_of_2025_streams_errors_in_a_field_of_its_own(self) -> None:
        error = b'error: {"code":400,"message":"the request exceeds the available context size","type":"x"}\n\n'
        _, one = await asked("llama.cpp", chunked(*sse(text_chunk("a")), error, *sse("[DONE]")))
        fails_gracefully(one, "error inside a 200 answer")
        assert "context size" in str(one.failure)

    async def test_lmdeploy_writes_comments_and_windows_lines(self) -> None:
        events = [b": ping - 2024\r\n\r\n", *(event.replace(b"\n", b"\r\n") for event in sse(text_chunk("a", "stop")))]
        _, one = await asked("lmdeploy", chunked(*events, b"data: [DONE]\r\n\r\n"))
        assert (one.ok, one.text) == (True, "a")

    async def test_not_streamed_there_is_no_first_token_to_time(self) -> None:
        body = text_chunk("a b c", "length") | {"usage": USAGE}
        request, one = await asked("openai", [whole(body)], stream=False)
        assert request.json["stream"] is False
        assert "stream_options" not in request.json
        assert (one.ok, one.text, one.output_tokens) == (True, "a b c", 3)
        assert math.isnan(one.ttft_s)
        assert one.e2el_s > 0

    async def test_what_is_given_is_merged_the_closer_the_stronger(self) -> None:
        sample = Sample("x", 1, 1, overrides={"user": "sample"})
        request, _ = await asked(
            "openai", chunked(*sse(text_chunk("a", "stop"), "[DONE]")), sample,
            sampling={"temperature": 0.5, "top_p": 0.9}, extra={"top_p": 0.8, "user": "extra"},
            ignore_eos=True, logprobs=2,
        )  # fmt: skip
        body = request.json
        assert (body["temperature"], body["top_p"], body["user"]) == (0.5, 0.8, "sample")
        assert (body["ignore_eos"], body["logprobs"]) == (True, 2)


class TestChat:
    async def test_a_text_is_one_message_of_the_user(self) -> None:
        events = sse(
            chat_chunk({"role": "assistant", "content": ""}), chat_chunk({"content": "Hi"}),
            chat_chunk({"content": "!"}), chat_chunk({}, "stop"), usage_chunk(), "[DONE]",
        )  # fmt: skip
        request, one = await asked("openai-chat", chunked(*events))
        assert request.path == "/v1/chat/completions"
        assert request.json["messages"] == [{"role": "user", "content": "Once upon a time"}]
        assert request.json["max_completion_tokens"] == 3
        assert (one.text, len(one.token_times_s)) == ("Hi!", 2)

    @pytest.mark.parametrize(
        "delta",
        [
            {"reasoning": "hm"},
            {"reasoning_content": "hm"},
            {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "{"}}]},
            {"function_call": {"arguments": "{"}},
            {"content": ""},
        ],
    )
    async def test_reasoning_and_tool_calls_are_tokens_and_the_role_is_not(self, delta: dict[str, Any]) -> None:
        events = sse(chat_chunk({"role": "assistant", "content": None}), chat_chunk(delta), chat_chunk({}, "stop"))
        _, one = await asked("openai-chat", chunked(*events, *sse("[DONE]")))
        assert (one.ok, len(one.token_times_s)) == (True, 1)

    async def test_media_are_parts_beside_the_text(self) -> None:
        events = sse(chat_chunk({"content": "a"}, "stop"), "[DONE]")
        request, _ = await asked("openai-chat", chunked(*events), Sample("look", 1, 1, media=(IMAGE, SOUND)))
        text, image, sound = request.json["messages"][0]["content"]
        assert text == {"type": "text", "text": "look"}
        assert image["image_url"]["url"] == "data:image/png;base64,iVBORw=="
        assert sound["input_audio"] == {"data": "UklGRg==", "format": "wav"}

    async def test_not_streamed(self) -> None:
        body = {"choices": [{"message": {"role": "assistant", "content": "Hi"}}], "usage": USAGE}
        _, one = await asked("openai-chat", [whole(body)], stream=False)
        assert (one.text, one.output_tokens) == ("Hi", 3)


class TestResponses:
    async def test_typed_events(self) -> None:
        def event(kind: str, **fields: Any) -> bytes:
            return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()

        usage = {"input_tokens": 4, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 1}}
        answer = chunked(
            event("response.created", response={}), event("response.output_text.delta", delta="Hi"),
            event("response.output_text.delta", delta="!"), event("response.output_text.done", text="Hi!"),
            event("response.completed", response={"usage": usage}),
        )  # fmt: skip
        request, one = await asked("openai-responses", answer)
        assert request.path == "/v1/responses"
        assert (request.json["input"], request.json["max_output_tokens"]) == ("Once upon a time", 3)
        assert request.json["store"] is False
        assert (one.ok, one.text, one.input_tokens, one.output_tokens, one.cached_tokens) == (True, "Hi!", 4, 2, 1)

    @pytest.mark.parametrize(
        "event",
        [
            {"type": "response.failed", "response": {"error": {"message": "out of memory"}}},
            {"type": "error", "message": "out of memory"},
        ],
    )
    async def test_a_response_that_failed_is_a_failure(self, event: dict[str, Any]) -> None:
        answer = chunked(*sse({"type": "response.output_text.delta", "delta": "Hi"}, event))
        _, one = await asked("openai-responses", answer)
        fails_gracefully(one, "error inside a 200 answer")
        assert "out of memory" in str(one.failure)


class TestAudio:
    async def test_a_sound_goes_in_as_a_form(self) -> None:
        sample = Sample("", 0, 5, media=(SOUND,))
        events = sse(chat_chunk({"content": "hello"}), chat_chunk({}, "stop"), usage_chunk(), "[DONE]")
        request, one = await asked("openai-audio", chunked(*events), sample)
        assert request.path == "/v1/audio/transcriptions"
        form = message_from_bytes(f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode() + request.body)
        parts = {part.get_param("name", header="content-disposition"): part for part in form.get_payload()}
        assert parts["file"].get_payload(decode=True) == b"RIFF"
        assert parts["file"].get_filename() == "audio.wav"
        fields = {name: part.get_payload() for name, part in parts.items() if name != "file"}
        assert fields == {
            "model": "a-model", "max_completion_tokens": "5", "stream": "true", "language": "en",
            "stream_include_usage": "true", "stream_continuous_usage_stats": "true",
        }  # fmt: skip
        assert (one.ok, one.text, one.output_tokens) == (True, "hello", 3)

    async def test_openais_own_events(self) -> None:
        events = sse(
            {"type": "transcript.text.delta", "delta": "hel"}, {"type": "transcript.text.delta", "delta": "lo"},
            {"type": "transcript.text.done", "text": "hello", "usage": {"input_tokens": 9, "output_tokens": 2}},
        )  # fmt: skip
        _, one = await asked("openai-audio", chunked(*events), Sample("", 0, 5, media=(SOUND,)))
        assert (one.ok, one.text, one.output_tokens) == (True, "hello", 2)

    def test_without_a_sound_there_is_nothing_to_send(self) -> None:
        from simserve.bench.backends.base import Ask

        with pytest.raises(ConfigError, match="needs sounds"):
            find_backend("openai-audio").encode(Ask(SAMPLE, "m"))


class TestTgi:
    @staticmethod
    def event(text: str, last: bool = False, **fields: Any) -> bytes:
        token = {"id": 1, "text": text, "logprob": -0.1, "special": False}
        body = {"index": 1, "token": token, "generated_text": "a b" if last else None, "details": None} | fields
        return b"data:" + json.dumps(body).encode() + b"\n\n"

    async def test_one_event_per_token_and_no_space_after_data(self) -> None:
        request, one = await asked("tgi", chunked(self.event("a"), b": ping\n\n", self.event(" b", last=True)))
        assert request.path == "/generate_stream"
        assert request.json == {
            "inputs": "Once upon a time",
            "parameters": {
                "max_new_tokens": 3, "do_sample": True, "temperature": 0.01, "top_p": 0.99, "truncate": 4,
                "details": True,
            },
        }  # fmt: skip
        assert (one.ok, one.text, one.output_tokens) == (True, "a b", 2)

    async def test_its_own_count_and_parameters(self) -> None:
        details = {"finish_reason": "length", "generated_tokens": 3, "seed": None}
        answer = chunked(self.event("a"), self.event(" b", last=True, details=details))
        request, one = await asked("tgi", answer, ignore_eos=True, sampling={"temperature": 0.7})
        assert request.json["parameters"]["ignore_eos_token"] is True
        assert request.json["parameters"]["temperature"] == 0.7
        assert one.output_tokens == 3

    async def test_an_overloaded_server_says_so_in_the_stream(self) -> None:
        error = b'data:{"error":"Model is overloaded","error_type":"overloaded"}\n\n'
        _, one = await asked("tgi", chunked(error))
        fails_gracefully(one, "error inside a 200 answer")
        assert "overloaded" in str(one.failure)


class TestTriton:
    @staticmethod
    def event(text: str) -> bytes:
        body = {"context_logits": 0.0, "model_name": "ensemble", "model_version": "1", "text_output": text}
        return b"data: " + json.dumps(body).encode() + b"\n\n"

    async def test_text_output_events_until_the_response_ends(self) -> None:
        request, one = await asked("tensorrt-llm", chunked(self.event("a"), self.event(" b")), ignore_eos=True)
        assert request.path == "/v2/models/ensemble/generate_stream"
        assert request.json == {
            "accumulate_tokens": True, "text_input": "Once upon a time", "temperature": 0.0, "top_p": 1.0,
            "max_tokens": 3, "stream": True, "min_length": 3,
        }  # fmt: skip
        assert (one.ok, one.text, len(one.token_times_s), one.output_tokens) == (True, "a b", 2, None)

    async def test_versions_that_repeat_all_text_so_far(self) -> None:
        _, one = await asked("tensorrt-llm", chunked(self.event("a"), self.event("a b"), self.event("a b c")))
        assert (one.text, len(one.token_times_s)) == ("a b c", 3)

    async def test_a_response_that_is_cut_has_no_end(self) -> None:
        from bench.raw_server import Then

        _, one = await asked("tensorrt-llm", [*chunked(self.event("a"), end=b""), Then.CLOSE])
        fails_gracefully(one, "stream cut in the middle")


class TestDeepspeedMii:
    @pytest.mark.parametrize("body", [{"choices": [{"text": "a b"}]}, {"text": ["a b"]}])
    async def test_a_whole_answer_without_usage(self, body: dict[str, Any]) -> None:
        request, one = await asked("deepspeed-mii", [whole(body)])
        assert "stream" not in request.json
        assert (one.ok, one.text, one.output_tokens) == (True, "a b", None)
        assert math.isnan(one.ttft_s)

    async def test_an_answer_without_either_is_malformed(self) -> None:
        _, one = await asked("deepspeed-mii", [whole({"generated": "a"})])
        fails_gracefully(one, "malformed answer")


class TestPooling:
    VECTORS = whole({"object": "list", "data": [{"embedding": [0.1]}], "usage": {"prompt_tokens": 9}})

    @pytest.mark.parametrize("name", ["openai-embeddings", "embeddings"])
    async def test_embeddings(self, name: str) -> None:
        sample = Sample(["a", "b"], 2, 0)
        request, one = await asked(name, [self.VECTORS], sample)
        assert (request.path, request.json) == ("/v1/embeddings", {"model": "a-model", "input": ["a", "b"]})
        assert (one.ok, one.input_tokens, one.output_tokens, sample.sequences) == (True, 9, 0, 2)
        assert one.e2el_s > 0

    async def test_embeddings_of_messages(self) -> None:
        request, one = await asked("openai-embeddings-chat", [self.VECTORS], Sample("look", 1, 0, media=(IMAGE,)))
        assert [part["type"] for part in request.json["messages"][0]["content"]] == ["text", "image_url"]
        assert one.ok

    async def test_raw_bytes_with_the_usage_in_a_header(self) -> None:
        metadata = json.dumps({"data": [{"shape": [1]}], "usage": {"prompt_tokens": 5}})
        _, one = await asked("openai-embeddings", [whole(b"\x00\x01\xff", "200 OK", f"metadata: {metadata}")])
        assert (one.ok, one.input_tokens) == (True, 5)

    async def test_vllms_pooling(self) -> None:
        request, one = await asked("vllm-pooling", [self.VECTORS])
        assert request.path == "/pooling"
        assert request.json["truncate_prompt_tokens"] == -1
        assert one.ok

    @pytest.mark.parametrize("name", ["rerank", "vllm-rerank"])
    async def test_rerank(self, name: str) -> None:
        scores = whole({"results": [{"index": 1, "relevance_score": 0.9}], "usage": {"total_tokens": 11}})
        request, one = await asked(name, [scores], Sample("which?", 2, 0, documents=["this", "that"]))
        assert request.path == "/rerank"
        assert (request.json["query"], request.json["documents"]) == ("which?", ["this", "that"])
        assert ("truncate_prompt_tokens" in request.json) == (name == "vllm-rerank")
        assert (one.ok, one.input_tokens) == (True, 11)

    async def test_an_answer_that_has_none_of_it_is_malformed(self) -> None:
        _, one = await asked("embeddings", [whole({"hello": 1})])
        fails_gracefully(one, "malformed answer")


def test_an_unknown_backend_is_told_which_there_are() -> None:
    with pytest.raises(ConfigError, match="no backend 'vlm'; choose one of openai, vllm"):
        find_backend("vlm")


def test_every_path_ends_as_its_backend_says() -> None:
    for backend in BACKENDS.values():
        assert backend.path.endswith(backend.endings), backend.name
