"""What is settled before the clock starts: the model, lengths, bodies, shares of the work, readiness."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench.raw_server import Piece, RawServer, Received, chunked, in_thread, sse, whole
from simserve.bench.load.schedule import Shape
from simserve.bench.options import BenchOptions, Questions, Target
from simserve.bench.plan import Plan, make_jobs, make_plan
from simserve.bench.run import run_bench, wait_until_ready
from simserve.bench.sample import Sample
from simserve.bench.server_facts import Server, align_prompts, first_model, request_headers
from simserve.bench.tokens import TextTokenizer, TokenizerOptions
from simserve.bench.wire.address import parse_address
from simserve.bench.wire.ask import ask
from simserve.errors import ConfigError, ServerError
from simserve.workload import load_tokenizer

TINY = TextTokenizer(load_tokenizer(), "tiny")
ANSWER = chunked(*sse({"choices": [{"text": "a", "finish_reason": "stop"}]}, "[DONE]"))


def models(*cards: dict[str, Any]) -> list[Piece]:
    return [whole({"object": "list", "data": list(cards)})]


def vllm_like(request: Received) -> list[Piece]:
    """A server that lists a model, counts tokens and answers completions; it counts with our small tokenizer."""
    if request.path == "/v1/models":
        return models({"id": "served", "root": "simserve/tiny-llama", "owned_by": "vllm"})
    if request.path == "/tokenize":
        ids = TINY.encode(request.json["prompt"])
        return [whole({"count": len(ids), "tokens": ids, "max_model_len": 4096})]
    if request.path == "/detokenize":
        return [whole({"prompt": TINY.decode(request.json["tokens"])})]
    if request.path.endswith("completions"):
        return list(ANSWER)
    return [whole({}, "404 Not Found")]


def options(server: RawServer, *, questions: dict[str, Any] | None = None, **fields: Any) -> BenchOptions:
    target = {"url": server.url, **fields.pop("target", {})}
    asked = {"count": 4, "settings": {"random_input_len": 12, "random_output_len": 3}, **(questions or {})}
    return BenchOptions(target=Target(**target), questions=Questions(**asked), **fields)


def bodies(plan: Plan) -> list[dict[str, Any]]:
    import json

    return [json.loads(request.content) for request in plan.requests]


class TestModel:
    def test_the_first_listed_model_and_the_tokenizer_of_its_root(self) -> None:
        with in_thread(vllm_like) as server:
            plan = make_plan(options(server))
        assert (plan.model, plan.tokenizer_id, plan.counter.is_exact) == ("served", "simserve/tiny-llama", True)
        assert {body["model"] for body in bodies(plan)} == {"served"}

    def test_openai_lists_no_root(self) -> None:
        with in_thread(lambda request: models({"id": "gpt-x"})) as server:
            card = first_model(Server(parse_address(server.url), {}))
        assert (card.name, card.root) == ("gpt-x", "gpt-x")

    def test_our_own_server_counts_with_the_tokenizer_that_ships(self) -> None:
        card = {"id": "m", "root": "meta-llama/Llama-3.1-8B", "owned_by": "simserve"}
        with in_thread(lambda request: models(card)) as server:
            assert make_plan(options(server)).counter.is_exact

    @pytest.mark.parametrize(
        ("answer", "said"),
        [
            (models(), "lists no model at /v1/models"),
            ([whole({}, "404 Not Found")], "give its name with --model"),
            ([whole({"error": "x"}, "401 Unauthorized")], "set OPENAI_API_KEY"),
        ],
    )
    def test_a_server_that_lists_none_is_one_sentence(self, answer: list[Piece], said: str) -> None:
        with in_thread(lambda request: answer) as server, pytest.raises(ServerError, match=said):
            make_plan(options(server))

    def test_the_key_and_headers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "k")
        assert request_headers(Target()) == {"Authorization": "Bearer k"}
        assert request_headers(Target(headers={"authorization": "Basic z"})) == {"authorization": "Basic z"}
        monkeypatch.delenv("OPENAI_API_KEY")
        assert request_headers(Target()) == {}

    def test_adapters_take_turns_or_are_drawn(self) -> None:
        with in_thread(vllm_like) as server:
            lora = {"lora_modules": ["a", "b", "c"]}
            turns = make_plan(options(server, target=lora | {"lora_assignment": "round-robin"}))
            drawn = make_plan(options(server, target=lora, questions={"count": 60}))
        assert [body["model"] for body in bodies(turns)] == ["a", "b", "c", "a"]
        assert {body["model"] for body in bodies(drawn)} == {"a", "b", "c"}


class TestIgnoringTheEnd:
    @pytest.mark.parametrize(
        ("backend", "owner", "dataset", "sent"),
        [
            ("openai-chat", "vllm", "random", True),
            ("openai-chat", "somebody", "random", False),
            ("vllm", "somebody", "random", True),
            ("vllm", "vllm", "sonnet", False),
            ("embeddings", "vllm", "random", False),
        ],
    )
    def test_it_goes_with_noise_to_servers_that_take_it(
        self, backend: str, owner: str, dataset: str, sent: bool
    ) -> None:
        with in_thread(lambda request: models({"id": "m", "owned_by": owner})) as server:
            plan = make_plan(options(server, target={"backend": backend}, questions={"dataset": dataset}))
            by_name = make_plan(
                options(server, target={"backend": backend, "model": "m"}, questions={"dataset": dataset})
            )
        assert [body.get("ignore_eos", False) for body in bodies(plan)] == [sent] * 4
        assert [body.get("ignore_eos", False) for body in bodies(by_name)] == [sent] * 4
        is_in_doubt = (backend, owner) == ("openai-chat", "somebody")
        assert any("may be shorter than asked" in note for note in plan.notes) == is_in_doubt

    def test_what_is_said_on_the_command_line_is_done(self) -> None:
        with in_thread(lambda request: models({"id": "m"})) as server:
            plan = make_plan(options(server, questions={"ignore_eos": True}))
        assert all(body["ignore_eos"] for body in bodies(plan))


class TestAlignment:
    def test_prompts_are_cut_or_filled_up_to_what_the_server_counts(self) -> None:
        """The client knows no tokenizer, so that its prompts are only about as long as asked."""
        with in_thread(vllm_like) as server:
            plan = make_plan(options(server, tokenizer=TokenizerOptions(skip=True), questions={"count": 20}))
        assert {TINY.count(str(sample.prompt)) for sample in plan.samples} == {12}
        assert any("20 were cut or filled up" in note for note in plan.notes)

    def test_prompts_that_are_right_are_left_alone(self) -> None:
        with in_thread(vllm_like) as server:
            plan = make_plan(options(server))
            asked = [request.path for request in server.received].count("/tokenize")
        assert asked == 1
        assert not any("cut or filled" in note for note in plan.notes)

    def test_a_server_that_does_not_count_is_no_trouble(self) -> None:
        samples = [Sample("some words", 5, 1, is_exact=False)]
        with in_thread(lambda request: [whole({}, "404 Not Found")]) as server:
            assert align_prompts(Server(parse_address(server.url), {}), "m", samples, 0) == (samples, None)
        gone = Server(parse_address(server.url), {})
        assert align_prompts(gone, "m", samples, 0) == (samples, None)


class TestWork:
    def test_processes_get_every_other_request_and_their_share_of_the_places(self) -> None:
        with in_thread(vllm_like) as server:
            plan = make_plan(
                options(server, questions={"count": 7}, shape=Shape(max_concurrency=3, stagger_s=3.0), processes=2)
            )
        first, second = make_jobs(plan)
        assert [[request.index for request in job.load.requests] for job in (first, second)] == [
            [0, 2, 4, 6],
            [1, 3, 5],
        ]
        assert (first.load.slots_s, second.load.slots_s) == ([0.0, 2.0], [1.0])
        assert (first.connections, second.connections) == (2, 1)
        assert first.load.index_step == 2

    def test_requests_that_are_sent_over_and_over_know_their_sample(self) -> None:
        with in_thread(vllm_like) as server:
            shape = Shape(max_concurrency=2, duration_s=1.0)
            plan = make_plan(options(server, questions={"count": 5}, shape=shape, processes=2))
        assert all(job.load.repeat for job in make_jobs(plan))
        # The first process sends 0, 2, 4 and then the same again as 6, 8, 10; the second 1, 3 and 5, 7.
        places = [plan.samples.index(plan.sample_of(index)) for index in (0, 2, 4, 6, 8, 10, 1, 3, 5, 7)]
        assert places == [0, 2, 4, 0, 2, 4, 1, 3, 1, 3]

    def test_a_rate_has_connections_ready_beforehand(self) -> None:
        with in_thread(vllm_like) as server:
            plan = make_plan(options(server, questions={"count": 400}, shape=Shape(request_rate=100.0)))
        (job,) = make_jobs(plan)
        assert (job.connections, job.spare, job.limit) == (100, 25, None)

    def test_a_duration_draws_as_many_requests_as_will_be_due(self) -> None:
        with in_thread(vllm_like) as server:
            plan = make_plan(options(server, shape=Shape(request_rate=50.0, duration_s=4.0)))
        assert 150 < len(plan.requests) == len(plan.schedule) < 250
        assert len({sample.prompt for sample in plan.samples}) > 140

    def test_warm_up_requests_are_others_than_those_that_count(self) -> None:
        with in_thread(vllm_like) as server:
            plan = make_plan(options(server, num_warmups=3))
        assert len(plan.warmups) == 3
        assert not {request.content for request in plan.warmups} & {request.content for request in plan.requests}

    def test_lockstep_is_pointed_out(self) -> None:
        with in_thread(vllm_like) as server:
            locked = make_plan(options(server, questions={"count": 9}, shape=Shape(max_concurrency=2)))
            spread = make_plan(options(server, questions={"count": 9}, shape=Shape(max_concurrency=2, stagger_s=1.0)))
        assert any("lockstep" in note for note in locked.notes)
        assert not any("lockstep" in note for note in spread.notes)

    def test_a_proxy_in_the_environment_is_pointed_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("http_proxy", "http://proxy:3128")
        with in_thread(vllm_like) as server:
            assert any("proxy" in note for note in make_plan(options(server)).notes)
            monkeypatch.setenv("no_proxy", "127.0.0.1")
            assert not any("proxy" in note for note in make_plan(options(server)).notes)

    def test_an_endpoint_of_another_backend_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="leave it out for /v1/chat/completions"):
            make_plan(BenchOptions(Target("http://127.0.0.1:9", "openai-chat", "/v1/completions", "m")))


class TestReadiness:
    def test_a_server_that_gets_ready_in_time_is_waited_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("simserve.bench.run.RETRY_S", 0.05)
        tries = 0

        def answer(request: Received) -> list[Piece]:
            nonlocal tries
            if not request.path.endswith("completions"):
                return vllm_like(request)
            tries += 1
            return [whole({"error": {"message": "loading"}}, "503 Service Unavailable")] if tries < 3 else list(ANSWER)

        said: list[str] = []
        with in_thread(answer) as server:
            wait_until_ready(make_plan(options(server, ready_check_timeout_s=20.0)), said.append)
        assert len(said) == 2
        assert "HTTP 503 Service Unavailable: loading" in said[0]

    def test_one_that_does_not_is_given_up_with_its_last_error(self) -> None:
        def answer(request: Received) -> list[Piece]:
            return [whole({}, "500 Oops")] if request.path.endswith("completions") else vllm_like(request)

        with in_thread(answer) as server:
            plan = make_plan(options(server, ready_check_timeout_s=0.2))
            with pytest.raises(ServerError, match="not ready within --ready-check-timeout-sec"):
                wait_until_ready(plan, lambda line: None)

    def test_one_that_does_not_listen_is_given_up_too(self) -> None:
        with in_thread(vllm_like) as server:
            pass
        with pytest.raises(ServerError, match="nothing listens"):
            make_plan(options(server, ready_check_timeout_s=0.2))


class TestRun:
    def test_answers_without_usage_are_counted_by_the_tokenizer_or_estimated(self) -> None:
        with in_thread(vllm_like) as server:
            exact = run_bench(make_plan(options(server)), {}, lambda progress, elapsed_s: None, lambda line: None)
            rough = make_plan(options(server, tokenizer=TokenizerOptions(skip=True)))
            estimated = run_bench(rough, {}, lambda progress, elapsed_s: None, lambda line: None)
        assert (exact.counted, exact.is_estimated) == ({"tokenizer": 4}, False)
        assert (estimated.counted, estimated.is_estimated) == ({"estimate": 4}, True)
        assert exact.figures.total_output_tokens == 4
        assert np.isnan(exact.figures.latency("tpot").mean)

    def test_the_profiler_is_switched_on_and_off(self) -> None:
        with in_thread(vllm_like) as server:
            said: list[str] = []
            run_bench(make_plan(options(server, profile=True)), {}, lambda progress, elapsed_s: None, said.append)
            paths = [request.path for request in server.received]
        assert paths.index("/start_profile") < paths.index("/v1/completions") < paths.index("/stop_profile")
        assert said == ["the server does not take /start_profile", "the server does not take /stop_profile"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [([b"SSH-2.0\r\n\r\n"], "gave no answer"), ([0.5, whole({})], "did not answer within 0.1 s")],
)
def test_questions_beside_the_measurement_fail_in_one_sentence(answer: list[Piece], said: str) -> None:
    with in_thread(lambda request: answer) as server, pytest.raises(ServerError, match=said):
        ask(parse_address(server.url), "/health", timeout_s=0.1)


def test_no_such_host_is_one_sentence() -> None:
    with pytest.raises(ServerError, match="there is no host no-such-host"):
        ask(parse_address("http://no-such-host.invalid:1"), "/")
