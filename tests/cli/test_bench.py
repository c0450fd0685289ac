"""``simserve bench`` as people run it, against servers in other processes."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from bench.raw_server import Piece, Received, Then, chunked, in_thread, sse, whole
from cli.test_serve import running
from simserve.bench.backends import BACKENDS
from simserve.bench.datasets import DATASETS
from simserve.bench.names import BACKEND_NAMES, DATASET_NAMES
from simserve.bench.self_test.log import read_log
from simserve.bench.self_test.measure import fixed_timing_server
from simserve.bench.self_test.server import Timing
from simserve.cli.main import main
from simserve.errors import ServerError

COMMAND = [sys.executable, "-m", "simserve", "bench"]
SMALL = ("--random-input-len", "20", "--random-output-len", "5", "--num-prompts", "12")
FEW = ("--fail-on", "never")

NAMES = ("gpt-4", "gpt-3.5-turbo", "meta-llama/Llama-2-7b-hf", "meta-llama/Llama-3.1-8B-Instruct")

CONVERSATION = [
    {"from": "human", "value": "How do I get from the old bridge to the market in the morning?"},
    {"from": "gpt", "value": "Take the stairs by the river and walk along the wall until you smell the bread."},
]


BURSTGPT = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n" + "".join(
    f"{row},GPT-4,{20 + row},{5 + row},{25 + 2 * row},Conversation log\n" for row in range(8)
)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Our own server, answering at once, under the names of the examples."""
    with running("--served-model-name", *NAMES) as server:
        # Somebody has to read on: a server whose log nobody takes stands still when the pipe is full.
        log = threading.Thread(target=server.process.stdout.read, daemon=True)
        log.start()
        yield server.url
        server.process.kill()
        log.join()


@pytest.fixture(scope="module")
def metronome() -> Iterator[str]:
    """A server that answers after 30 ms with ten tokens, 5 ms apart."""
    with fixed_timing_server(Timing(0.03, 0.005, 10)) as url:
        yield url


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with the files that examples name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sharegpt.json").write_text(json.dumps([{"conversations": CONVERSATION}] * 20))
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "What is the capital of France?"}\n' * 20)
    (tmp_path / "question.jsonl").write_text('{"category": "coding", "turns": ["Write a sort.", "Faster."]}\n' * 12)
    (tmp_path / "BurstGPT.csv").write_text(BURSTGPT)
    turns = [{"role": turn["from"].replace("human", "user").replace("gpt", "assistant"), "content": turn["value"]}
             for turn in CONVERSATION]  # fmt: skip
    talks = [{"id": str(number), "messages": turns * 2} for number in range(6)]
    (tmp_path / "conversations.json").write_text(json.dumps(talks))
    return tmp_path


def bench(url: str, *words: str) -> list[str]:
    return ["bench", "--base-url", url, *words]


class TestRuns:
    def test_a_closed_loop_tells_the_truth(self, metronome: str, folder: Path) -> None:
        """No latency is below what the server took, and none far above."""
        code = main(
            bench(metronome, "--backend", "openai-chat", *SMALL, "--max-concurrency", "4", "--out", "run", *FEW)
        )
        assert code == 0
        result = json.loads((folder / "run/result.json").read_text())
        assert (result["completed"], result["failed"], result["model_id"]) == (12, 0, "fixed-timing")
        assert result["total_output_tokens"] == 120
        assert result["median_ttft_ms"] >= 30
        assert result["median_e2el_ms"] >= 75
        assert result["max_concurrent_requests"] <= 4
        assert {"requests.csv", "requests.jsonl", "report.html"} <= {path.name for path in (folder / "run").iterdir()}

    def test_the_classic_block_and_nothing_else_on_stdout(
        self, metronome: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(bench(metronome, *SMALL, "--report", "vllm", "--request-rate", "200")) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "============ Serving Benchmark Result ============"
        assert lines[-1] == "=" * 50
        assert re.fullmatch(r"Successful requests: +12 +", lines[1])

    def test_labels_in_chinese(self, metronome: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(bench(metronome, *SMALL, "--lang", "zh", *FEW)) == 0
        assert "吞吐量" in capsys.readouterr().out

    def test_processes_share_a_rate(self, metronome: str, folder: Path) -> None:
        words = ("--request-rate", "100", "--processes", "2", "--out", "run", "--num-warmups", "3")
        assert main(bench(metronome, *SMALL, *words)) == 0
        rows = (folder / "run/requests.csv").read_text().splitlines()
        assert [row.split(",")[0] for row in rows[1:]] == [str(index) for index in range(12)]

    def test_a_duration_ends_a_closed_loop(self, metronome: str, folder: Path) -> None:
        words = ("--duration", "1", "--max-concurrency", "3", "--num-prompts", "5", "--save-result", "--append-result")
        assert main(bench(metronome, "--random-input-len", "20", *words, "--result-filename", "r.json")) == 0
        result = json.loads((folder / "r.json").read_text())
        assert 15 <= result["completed"] <= 42  # 3 at a time, 75 ms each, begun within a second
        assert 1.0 <= result["duration"] < 1.5
        assert any("repeated" in note for note in result["simserve"]["notes"])

    def test_a_trace_keeps_its_arrivals(self, metronome: str, folder: Path) -> None:
        rows = ["arrival_s,input_tokens,output_tokens", "5.0,10,3", "5.2,10,3", "5.5,10,3"]
        (folder / "trace.csv").write_text("\n".join(rows))
        words = ("--dataset-name", "timed_trace", "--dataset-path", "trace.csv", "--out", "run", *FEW)
        assert main(bench(metronome, *words)) == 0
        sent = [line.split(",")[4] for line in (folder / "run/requests.csv").read_text().splitlines()[1:]]
        assert [float(due_s) for due_s in sent] == pytest.approx([0.0, 0.2, 0.5], abs=1e-6)

    def test_the_self_test_comes_first_and_is_in_the_result(
        self, metronome: str, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(bench(metronome, *SMALL, "--max-concurrency", "2", "--self-test", "--out", "run", *FEW)) == 0
        own = json.loads((folder / "run/result.json").read_text())["simserve"]["self_test"]
        assert own["requests"] == 4
        assert own["ttft_mean_s"] > 0
        said = capsys.readouterr()
        assert "self-test, 4 answers of known timing" in said.err
        assert "self-test" in said.out

    def test_a_result_is_held_against_a_prediction(self, url: str, folder: Path) -> None:
        assert main(bench(url, *SMALL, "--save-result", "--save-detailed", "--result-filename", "r.json")) == 0
        done = ["validate", "serving", "r.json", "--model", "opt-125m", "--hardware", "L4"]
        assert main(done) == 0

    def test_two_results_side_by_side(self, metronome: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for name, rate in (("a.json", "50"), ("b.json", "100")):
            words = ("--request-rate", rate, "--save-result", "--result-filename", name, "--disable-tqdm")
            assert main(bench(metronome, *SMALL, *words)) == 0
        capsys.readouterr()
        assert main(["bench", "compare", "a.json", "b.json"]) == 0
        out = capsys.readouterr().out
        assert re.search(r"mean TTFT, ms +[\d.]+ +[\d.]+ +[\d.]+", out)
        assert "request_rate differs: 50.0 and 100.0" in out


EXAMPLES = """
--backend openai-chat --model gpt-4 --dataset-name sharegpt --dataset-path sharegpt.json --num-prompts 10
--backend openai-chat --model gpt-4 --dataset-name random --random-input-len 64 --random-output-len 8 --num-prompts 10
--backend openai-chat --model gpt-3.5-turbo --dataset-name random --num-prompts 10 --request-rate 50 --burstiness 0.5
--backend openai --endpoint /v1/completions --model meta-llama/Llama-2-7b-hf --num-prompts 10 --max-concurrency 4
--backend vllm --model gpt-4 --num-prompts 9 --ignore-eos --percentile-metrics ttft,tpot,itl --metric-percentiles 50,99
--backend vllm --model gpt-4 --num-prompts 12 --ramp-up-strategy linear --ramp-up-start-rps 20 --ramp-up-end-rps 60
--backend vllm --model gpt-4 --num-prompts 9 --ramp-up-strategy exponential --ramp-up-start-rps 9 --ramp-up-end-rps 60
--backend openai-chat --model gpt-4 --num-prompts 9 --goodput ttft:20000 tpot:5000 --save-result --result-dir .
--backend openai-chat --model gpt-4 --dataset-name custom --dataset-path prompts.jsonl --num-prompts 10 --seed 7
--backend openai-chat --model gpt-4 --dataset-name sonnet --num-prompts 5 --sonnet-input-len 300 --trust-remote-code
--backend sglang --model gpt-4 --dataset-name prefix-repetition --num-prompts 20 --save-detailed --metadata gpu=none
--backend lmdeploy --model gpt-4 --num-prompts 8 --tokenizer simserve/tiny-llama --tokenizer-mode auto --disable-tqdm
--backend openai-chat --model gpt-4 --num-prompts 8 --header X-Team=a --extra-body '{"top_p": 0.9}' --temperature 0.1
--backend vllm --model gpt-4 --lora-modules gpt-4 gpt-3.5-turbo --ready-check-timeout-sec 10 --num-prompts 8
serve --backend openai-chat --model gpt-4 --num-prompts 8 --endpoint /v1/chat/completions --skip-tokenizer-init
--model meta-llama/Llama-3.1-8B-Instruct --dataset-name custom --dataset-path prompts.jsonl \
 --custom-skip-chat-template --num-prompts 8 --max-concurrency 1 --temperature=0.3 --top-p=0.75 --save-result \
 --result-dir "./log/"
--model meta-llama/Llama-3.1-8B-Instruct --dataset-name burstgpt --dataset-path BurstGPT.csv --num-prompts 10
--model gpt-4 --dataset-name spec_bench --dataset-path question.jsonl --num-prompts -1 --spec-bench-category "coding"
--backend openai --model gpt-4 --dataset-name prefix_repetition --num-prompts 20 --prefix-repetition-prefix-len 512 \
 --prefix-repetition-suffix-len 128 --prefix-repetition-num-prefixes 5 --prefix-repetition-output-len 16
--backend vllm --model gpt-4 --num-prompts 8 --top-k 10 --top-p 0.9 --temperature 0.5 --num-warmups 2
"""
"""Commands as people write them for ``vllm bench serve``, some of which fail there: no endpoint, no such tokenizer."""

ELSEWHERE = """
--backend openai-embeddings --model jinaai/jina-embeddings-v3 --endpoint /v1/embeddings --dataset-name sharegpt \
 --dataset-path sharegpt.json --num-prompts 10
--backend embeddings --model m --num-prompts 4 --random-batch-size 2
--backend openai-embeddings-chat --model m --dataset-name random-mm --random-mm-bucket-config '{(8, 8, 1): 1}'
--backend vllm-pooling --model m --num-prompts 4
--backend rerank --model m --dataset-name random-rerank --num-prompts 4
--backend vllm-rerank --model BAAI/bge-reranker-base --endpoint /v1/rerank --dataset-name random-rerank \
 --random-input-len 512 --num-prompts 10 --random-batch-size 5
--backend openai-chat --model Qwen/Qwen2.5-VL-3B-Instruct --endpoint /v1/chat/completions --dataset-name random-mm \
 --num-prompts 10 --max-concurrency 10 --random-prefix-len 25 --random-input-len 300 --random-output-len 40 \
 --random-range-ratio 0.2 --random-mm-base-items-per-request 2 \
 --random-mm-limit-mm-per-prompt '{"image": 3, "video": 0}' \
 --random-mm-bucket-config '{(256, 256, 1): 0.7, (720, 1280, 1): 0.3}' --request-rate inf --ignore-eos --seed 42
--backend openai-responses --model gpt-4 --num-prompts 4
--backend openai-audio --model whisper-1 --dataset-name random-audio --random-audio-seconds 1 --num-prompts 4
--backend openai --model gpt-4 --num-prompts 4 --no-stream
--backend scalellm --model m --num-prompts 4
--backend llama.cpp --model m --num-prompts 4
--backend tgi --model m --dataset-name sharegpt --dataset-path sharegpt.json --num-prompts 4
--backend tensorrt-llm --model m --num-prompts 4
--backend deepspeed-mii --model m --num-prompts 4
"""
"""The same for servers that ours does not play."""


def commands(text: str) -> list[str]:
    """One per line; a line that ends in a backslash goes on."""
    return text.replace("\\\n", "").strip().splitlines()


def anybody(request: Received) -> list[Piece]:
    """A server of every kind: what each sends for an answer, by the path it is asked at."""
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    if request.method == "GET" or request.path.endswith("tokenize"):
        return [whole({"error": "not here"}, "404 Not Found")]
    if request.path.endswith(("embeddings", "pooling", "rerank")):
        return [whole({"data": [], "usage": usage})]
    delta = {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}]}
    streams: dict[str, list[Any]] = {
        "/v1/chat/completions": [delta, delta, USAGE, "[DONE]"],
        "/v1/audio/transcriptions": [delta, delta, USAGE, "[DONE]"],
        "/v1/completions": [TOKEN, LAST, USAGE, "[DONE]"],
        "/v1/responses": [{"type": "response.output_text.delta", "delta": "a"},
                          {"type": "response.completed", "response": {"usage": usage}}],
        "/generate_stream": [{"token": {"text": "a"}}, {"token": {"text": "b"}, "generated_text": "ab"}],
        "/v2/models/ensemble/generate_stream": [{"text_output": "a"}, {"text_output": "b"}],
    }  # fmt: skip
    if request.path == "/v1/completions" and not request.json.get("stream"):
        return [whole({"choices": [{"text": " a b"}]})]
    return list(chunked(*sse(*streams[request.path])))


MULTI_TURN = """
-i conversations.json -m gpt-4 -u {url}
-i conversations.json -m gpt-4 -u {url} -p 4 -k 8 -n 12 --request-rate 50 --max-turns 4 --warmup-step
-i conversations.json -m gpt-4 -u {url} -p 2 --processes 2 -e --stats-json-output s.json --warmup-percentages 0,50%
-i conversations.json --model gpt-4 --url {url} -o out.json --no-early-stop --limit-min-tokens -1 --limit-max-tokens 20
""".strip().splitlines()


class TestExamples:
    @pytest.mark.parametrize("words", commands(EXAMPLES))
    def test_they_run_as_they_are_written(self, words: str, url: str, folder: Path) -> None:
        port = url.rsplit(":", 1)[1]
        assert main(["bench", *shlex.split(words), "--port", port]) == 0

    @pytest.mark.parametrize("words", commands(ELSEWHERE))
    def test_other_servers_are_asked_in_their_own_way(self, words: str, folder: Path) -> None:
        with in_thread(anybody) as server:
            argv = ["bench", *shlex.split(words), "--port", str(server.port), "--out", "run", "--fail-on", "failures"]
            assert main(argv) == 0
        result = json.loads((folder / "run/result.json").read_text())
        assert result["completed"] == result["num_prompts"] > 0
        assert result["total_input_tokens"] > 0

    def test_a_strict_server_is_sent_nothing_that_openai_has_not(self, folder: Path) -> None:
        """OpenAI's own answers 400 to a field that it does not know; noise alone asks others to ignore the end."""
        with in_thread(anybody) as server:
            assert main(bench(server.url, "--backend", "openai-chat", "--model", "gpt-4", "--num-prompts", "3")) == 0
        asked = [request.json for request in server.received if request.method == "POST" and request.path[:3] == "/v1"]
        fields = {"model", "messages", "max_completion_tokens", "stream", "stream_options"}
        assert [set(body) for body in asked] == [fields] * 3

    @pytest.mark.parametrize("words", MULTI_TURN)
    def test_conversations_too(self, words: str, url: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["bench", "multi-turn", *shlex.split(words.format(url=url))]) == 0
        assert "turns/s" in capsys.readouterr().out
        if " -e " in words:
            assert list(folder.glob("statistics_2_clients__*"))
            blocks = json.loads((folder / "s.json").read_text())["without_first"]
            assert (blocks["0%"]["turns"], blocks["50%"]["turns"]) == (12, 6)
        if "-o " in words:
            assert len(json.loads((folder / "out.json").read_text())) == 6


class TestExitCodes:
    def test_a_missed_slo_fails_the_command(self, metronome: str) -> None:
        missed = bench(metronome, *SMALL, "--goodput", "ttft:1")
        assert main(missed) == 1
        assert main([*missed, "--fail-on", "never"]) == 0
        assert main([*missed, "--goodput-target", "0"]) == 0

    def test_failures_and_the_verdict_if_asked_for(self, metronome: str) -> None:
        assert main(bench(metronome, *SMALL, "--fail-on", "failures")) == 0
        assert main(bench(metronome, *SMALL, "--fail-on", "failures,verdict")) == 1  # twelve answers are too few

    def test_a_server_that_refuses_everything(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(bench(url, "--model", "no-such-model", *SMALL)) == 1
        out = capsys.readouterr().out
        assert "12 of 12 requests: HTTP 404 Not Found (The model `no-such-model` does not exist.)" in out
        assert "UNSTABLE: no request succeeded" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--base-url http://127.0.0.1:9", "nothing listens at http://127.0.0.1:9; start the server"),
        ("--base-url http://127.0.0.1:9 --model m", "nothing listens at http://127.0.0.1:9; start the server"),
        ("--backend vlm", "there is no backend 'vlm'"),
        ("--backend openai-chat --endpoint /v1/completions --model m", "--endpoint /v1/completions is none of a"),
        ("--num-prompts 0", "--num-prompts is 0"),
        ("--max-concurrency 0", "--max-concurrency is 0"),
        ("--max-concurrency 2 --processes 3", "cannot be shared by 3 processes"),
        ("--goodput ttft", "--goodput takes NAME:MILLISECONDS"),
        ("--goodput ttft:5 --no-stream", "--goodput ttft needs answers token by token"),
        ("--percentile-metrics ttf", "--percentile-metrics knows no 'ttf'"),
        ("--metric-percentiles 101", "101 is not a percentile"),
        ("--fail-on slow", "--fail-on knows no 'slow'"),
        ("--header X", "--header takes NAME=VALUE"),
        ("--metadata X", "--metadata takes NAME=VALUE"),
        ("--extra-body [1]", "is not a JSON object"),
        ("--ramp-up-strategy linear", "give --ramp-up-start-rps and --ramp-up-end-rps too"),
        ("--ramp-up-start-rps 3", "give --ramp-up-strategy too"),
        ("--self-timed", "--self-timed is for --dataset-name timed_trace"),
        ("--num-promts 5", "did you mean --num-prompts?"),
        ("compare a.json b.json", "a.json cannot be read"),
        ("multi-turn -i none.json -m x", "cannot read none.json"),
        ("multi-turn -i x.json -p 0 -m x", "cannot read x.json"),
        ("faster", "simserve bench does not know faster; see simserve bench --help"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(words: str, said: str, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert main(["bench", *words.split()]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert error.splitlines()[-1].startswith("simserve: ")


def test_the_names_on_the_command_line_are_all_there_are() -> None:
    assert set(BACKEND_NAMES) == set(BACKENDS)
    assert set(DATASET_NAMES) == set(DATASETS)


class TestCtrlC:
    @staticmethod
    def started(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            env=os.environ,
        )  # fmt: skip

    def test_it_stops_sending_drains_reports_and_saves(self, tmp_path: Path) -> None:
        """It comes after a few answers, while others are under way: those are waited for, and count."""
        with fixed_timing_server(Timing(0.5, 0.01, 10)) as url:
            process = self.started(
                "--base-url", url, "--request-rate", "20", "--num-prompts", "5000", "--random-input-len", "20",
                "--out", str(tmp_path / "run"),
            )  # fmt: skip
            while not answered(url):
                assert process.poll() is None
                time.sleep(0.05)
            os.killpg(process.pid, signal.SIGINT)
            out, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
        assert "Traceback" not in err
        assert "Ctrl-C: nothing more is sent, answers are waited for" in err
        result = json.loads((tmp_path / "run/result.json").read_text())
        assert 1 <= result["completed"] < 5000
        assert (result["failed"], result["num_prompts"]) == (0, result["completed"])
        assert result["simserve"]["interrupted"] is True
        assert "stopped by Ctrl-C" in out
        assert len((tmp_path / "run/requests.csv").read_text().splitlines()) == 1 + result["completed"]

    def test_a_second_one_does_not_wait_for_answers(self) -> None:
        with in_thread(lambda request: [Then.SILENCE]) as server:
            words = ("--model", "m", "--num-prompts", "3", "--max-concurrency", "3", "--dataset-name", "sonnet")
            process = self.started("--base-url", server.url, "--ready-check-timeout-sec", "0", *words)
            assert process.stderr is not None
            while sum(request.method == "POST" for request in server.received) < 3:
                assert process.poll() is None
                time.sleep(0.05)
            os.killpg(process.pid, signal.SIGINT)
            while "Ctrl-C" not in (line := process.stderr.readline()):
                assert line
            os.killpg(process.pid, signal.SIGINT)
            out, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
        assert "3 of 3 requests: stopped before the answer was complete" in out

    def test_before_the_start_it_just_ends(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never says anything
            process = self.started("--base-url", f"http://127.0.0.1:{silent.getsockname()[1]}", "--num-prompts", "3")
            silent.settimeout(60)
            connection, _ = silent.accept()
            os.killpg(process.pid, signal.SIGINT)
            _, err = process.communicate(timeout=60)
            connection.close()
        assert process.returncode == 130
        assert err.endswith("simserve: interrupted before it was done\n")


def answered(url: str) -> bool:
    """Whether the test server at ``url`` has answered anything."""
    try:
        return bool(read_log(url).rows)
    except ServerError:
        return False


TOKEN = {"choices": [{"index": 0, "text": " a", "finish_reason": None}]}
LAST = {"choices": [{"index": 0, "text": " b", "finish_reason": "length"}]}
USAGE = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 7, "total_tokens": 10}}

WAYS: list[tuple[list[Piece], str]] = [
    (chunked(*sse(TOKEN, LAST, USAGE, "[DONE]")), ""),
    (chunked(*sse(TOKEN, LAST, "[DONE]")), ""),  # no usage: the tokens are counted from the text
    ([whole({"error": {"message": "no key"}}, "401 Unauthorized")],
     "HTTP 401 Unauthorized (no key); set OPENAI_API_KEY, or give --header Authorization=..."),
    ([whole({"error": {"message": "slow down"}}, "429 Too Many Requests", "Retry-After: 7")],
     "HTTP 429 Too Many Requests (slow down); lower --request-rate or --max-concurrency (the server asks to come back"
     " after 7 s)"),
    ([whole({"error": {"message": "boom"}}, "500 Internal Server Error")],
     "HTTP 500 Internal Server Error (boom); look into the server's log"),
    ([*chunked(*sse(TOKEN), end=b""), Then.CLOSE], "stream cut in the middle; look into the server's log"),
    (chunked(*sse(TOKEN, {"error": {"message": "out of memory"}}, "[DONE]")),
     "error inside a 200 answer (out of memory); look into the server's log"),
    ([*chunked(*sse(TOKEN), end=b""), Then.SILENCE],
     "no complete answer within --request-timeout; look into the server's log, or raise --request-timeout"),
    (chunked(*sse(TOKEN, '{"choices": [')),
     """malformed answer (an event is no JSON: '{"choices": ['); check that --backend fits the server"""),
]  # fmt: skip
"""What a server answers, and what is said of it: a sentence for each way to fail."""


class TestFailures:
    def test_they_are_counted_and_named_and_in_no_average(self, folder: Path) -> None:
        def answer(request: Received) -> list[Piece]:
            if request.method == "GET":
                return [whole({}, "404 Not Found")]
            return WAYS[int(request.headers["x-request-id"].rpartition("-")[2]) % len(WAYS)][0]

        count = 2 * len(WAYS)
        words = ("--model", "m", "--dataset-name", "sonnet", "--num-prompts", str(count), "--max-concurrency", "6")
        with in_thread(answer) as server:
            assert main(bench(server.url, *words, "--request-timeout", "3", "--out", "run", "--fail-on", "never")) == 0
        result = json.loads((folder / "run/result.json").read_text())
        assert (result["completed"], result["failed"]) == (4, count - 4)
        assert result["total_output_tokens"] == 2 * 7 + 2 * 1  # the estimate of " a b" is one token
        assert result["simserve"]["tokens_counted_by"] == {"usage": 2, "estimate": 2}
        said = {sentence for _, sentence in WAYS if sentence}
        assert set(result["simserve"]["failures"]) == {f"2 of {count} requests: {sentence}" for sentence in said}
        with (folder / "run/requests.csv").open() as file:
            rows = list(csv.DictReader(file))
        good = [row for row in rows if row["status"] == "ok"]
        assert [int(row["index"]) % len(WAYS) for row in good] == [0, 1, 0, 1]
        for name in ("ttft", "e2el"):
            assert result[f"mean_{name}_ms"] == pytest.approx(mean(float(row[f"{name}_ms"]) for row in good), abs=1e-3)
        assert all(not row["e2el_ms"] and row["error"] for row in rows if row["status"] == "failed")

    def test_a_server_that_goes_away_leaves_what_was_answered(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def answer(request: Received) -> list[Piece]:
            if request.method == "GET":
                return [whole({}, "404 Not Found")]
            if sum(one.method == "POST" for one in server.received) > 5:
                server.leave()
                return [Then.RESET]
            return list(WAYS[0][0])

        words = ("--model", "m", "--dataset-name", "sonnet", "--num-prompts", "8", "--max-concurrency", "1")
        with in_thread(answer) as server:
            assert main(bench(server.url, *words, "--save-result", "--result-filename", "r.json")) == 0
        result = json.loads((folder / "r.json").read_text())
        assert (result["completed"], result["failed"]) == (5, 3)
        assert "3 of 8 requests: connection refused; start the server" in capsys.readouterr().out
