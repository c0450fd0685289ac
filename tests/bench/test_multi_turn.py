"""Conversations: read, made up, carried to their end by clients, and measured turn by turn."""

from __future__ import annotations

import json
import math
from collections import deque
from datetime import datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest

from bench.raw_server import Piece, Received, chunked, raw_server, sse, whole
from simserve.bench.multi_turn.clients import ClientOptions, Crowd, run_client
from simserve.bench.multi_turn.conversations import Conversation, Message, parse_conversations
from simserve.bench.multi_turn.distributions import parse_distribution
from simserve.bench.multi_turn.generate import generate_conversations
from simserve.bench.multi_turn.report import after_warmup, statistics, statistics_rows, turn_rows, write_excel
from simserve.bench.multi_turn.run import MultiTurnRun
from simserve.bench.multi_turn.turns import TurnOptions
from simserve.bench.tokens import Estimate, TextTokenizer
from simserve.bench.wire.address import parse_address
from simserve.bench.wire.pool import Pool
from simserve.errors import ConfigError, WorkloadError
from simserve.workload import load_tokenizer

TINY = TextTokenizer(load_tokenizer(), "tiny")


def conversation(id_: str, turns: int, *, ends_with_user: bool = False) -> Conversation:
    """``turns`` questions and answers; perhaps without the last answer."""
    messages = []
    for turn in range(turns):
        messages += [Message("user", f"question {turn} of {id_}"), Message("assistant", "four words of answer")]
    return Conversation(id_, messages[:-1] if ends_with_user else messages)


def answer_with_its_number(request: Received) -> list[Piece]:
    """Says which turn it is by the messages it was sent, a word at a time."""
    turn = (len(request.json["messages"]) - 1) // 2
    words = [
        {"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]} for word in ("turn ", str(turn))
    ]
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    usage = {"choices": [], "usage": {"prompt_tokens": 10 * (turn + 1), "completion_tokens": 2, "total_tokens": 9}}
    return chunked(*sse(*words, end, usage, "[DONE]"))


async def talked(
    answer: Any, conversations: list[Conversation], clients: int = 1, **options: Any
) -> tuple[Crowd, list[Received]]:
    """Carry the conversations to their end, or as far as ``options`` let them go."""
    async with raw_server(answer) as server:
        address = parse_address(server.url)
        pool = Pool(address)
        settings = {"path": "/v1/chat/completions", "headers": {}, "turn": TurnOptions("a-model"), "max_retries": 0}
        crowd = Crowd(address, ClientOptions(**(settings | options)), Estimate(), deque(conversations), pool)
        crowd.start_s = perf_counter()
        try:
            import asyncio

            await asyncio.gather(*(run_client(crowd, client_id) for client_id in range(clients)))
        finally:
            pool.close()
    return crowd, server.received


class TestInput:
    def test_a_list_of_conversations(self) -> None:
        content = [{"id": "a", "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"},
                                            {"role": "assistant", "content": "a"}]}]  # fmt: skip
        (one,) = parse_conversations("f.json", content)
        assert (one.id, one.first_turn, len(one.messages)) == ("a", 1, 3)
        (cut,) = parse_conversations("f.json", content, max_turns=2)
        assert len(cut.messages) == 2

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ([], "no list of conversations"),
            ([{"id": "a"}], "conversation 1 needs id and messages"),
            ([{"id": "a", "messages": []}], "has no messages"),
            ([{"id": "a", "messages": [{"role": "user"}]}], "without role or content"),
            ([{"id": "a", "messages": [{"role": "assistant", "content": "x"}]}], "assistant where user must speak"),
            ([{"id": "a", "messages": [{"role": "user", "content": "x"}] * 2}], "user where assistant must speak"),
            ([{"id": "a", "messages": [{"role": "system", "content": "x"}]}], "no message of the user"),
            ([{"id": "a", "messages": [{"role": "user", "content": "x"}]}] * 2, "two conversations with the id a"),
        ],
    )
    def test_what_is_wrong_is_named(self, content: Any, said: str) -> None:
        with pytest.raises(WorkloadError, match=said):
            parse_conversations("f.json", content)


class TestDistributions:
    @pytest.mark.parametrize(
        ("spec", "mean", "low", "high"),
        [
            ({"distribution": "constant", "value": 7}, 7, 7, 7),
            ({"distribution": "uniform", "min": 2, "max": 4}, 3, 2, 4),
            ({"distribution": "uniform", "min": 2.0, "max": 4.0}, 3, 2, 4),
            ({"distribution": "poisson", "alpha": 20}, 20, 0, 60),
            ({"distribution": "poisson", "alpha": 20, "max": 22}, None, 0, 22),
            ({"distribution": "zipf", "alpha": 2.0, "max": 9}, None, 1, 9),
            ({"distribution": "lognormal", "average": 100}, 100, 1, 5000),
            ({"distribution": "lognormal", "average": 100, "median_ratio": 0.5, "max": 400}, None, 1, 400),
            ({"distribution": "lognormal", "mean": 3.0, "sigma": 0.5}, math.exp(3 + 0.125), 1, 1000),
        ],
    )
    def test_each_draws_what_it_says(self, spec: dict[str, Any], mean: float | None, low: float, high: float) -> None:
        drawn = parse_distribution("x", spec).draw(np.random.default_rng(0), 4000)
        assert low <= min(drawn) <= max(drawn) <= high
        if mean is not None:
            assert np.mean(drawn) == pytest.approx(mean, rel=0.03)

    def test_the_median_of_a_lognormal_is_its_part_of_the_average(self) -> None:
        spec = {"distribution": "lognormal", "average": 1000, "median_ratio": 0.6}
        drawn = parse_distribution("x", spec).draw(np.random.default_rng(0), 20_000)
        assert np.median(drawn) / np.mean(drawn) == pytest.approx(0.6, abs=0.02)

    @pytest.mark.parametrize(
        ("spec", "said"),
        [
            (None, "x must be"),
            ({"distribution": "gauss"}, "x must be"),
            ({"distribution": "constant"}, "x needs value"),
            ({"distribution": "constant", "value": 1, "max": 2}, "has max, which constant does not know"),
            ({"distribution": "constant", "value": "a"}, "numbers only"),
            ({"distribution": "uniform", "min": 3, "max": 2}, "min must not be above max"),
            ({"distribution": "zipf", "alpha": 1}, "alpha of zipf"),
            ({"distribution": "lognormal", "average": 5, "median_ratio": 2}, "median_ratio"),
        ],
    )
    def test_what_is_wrong_is_named(self, spec: Any, said: str) -> None:
        with pytest.raises(WorkloadError, match=said):
            parse_distribution("x", spec)


class TestGeneration:
    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        (tmp_path / "story.txt").write_text("Once there was a river that nobody had a name for. " * 200)
        return tmp_path / "generate.json"

    def spec(self, **fields: Any) -> dict[str, Any]:
        def constant(value: int) -> dict[str, Any]:
            return {"distribution": "constant", "value": value}

        prompt = {"num_turns": constant(3), "common_prefix_num_tokens": constant(30), "prefix_num_tokens": constant(20),
                  "num_tokens": constant(12)}  # fmt: skip
        return {"filetype": "generate_conversations", "num_conversations": 5, "text_files": ["story.txt"],
                "prompt_input": prompt, "prompt_output": {"num_tokens": constant(9)}} | fields  # fmt: skip

    @pytest.mark.parametrize("counter", [TINY, Estimate()])
    def test_lengths_turns_and_what_is_shared(self, source: Path, counter: Any) -> None:
        made = generate_conversations(source, self.spec(), counter, seed=0)
        assert len({one.id for one in made}) == 5
        for one in made:
            assert len(one.messages) == 4  # three turns are rounded up to an even number
            assert [message.role for message in one.messages] == ["user", "assistant"] * 2
            assert one.messages[1].tokens == 9
            assert counter.count(one.messages[2].content) == pytest.approx(12, abs=2)
        firsts = [one.messages[0].content for one in made]
        shared = next(at for at in range(len(firsts[0])) if len({first[at] for first in firsts}) > 1)
        assert counter.count(firsts[0][:shared]) == pytest.approx(33, abs=4)  # the common part and "Conversation "

    def test_the_same_seed_makes_the_same(self, source: Path) -> None:
        lengths = {"distribution": "uniform", "min": 5, "max": 50}
        spec = self.spec()
        spec["prompt_input"]["num_tokens"] = lengths
        made = [generate_conversations(source, spec, Estimate(), seed) for seed in (1, 1, 2)]
        assert made[0] == made[1] != made[2]

    @pytest.mark.parametrize(
        ("fields", "error", "said"),
        [
            ({"num_conversations": 0}, WorkloadError, "num_conversations"),
            ({"prompt_input": None}, WorkloadError, "prompt_input is missing"),
            ({"text_files": []}, WorkloadError, "text_files"),
            ({"text_files": ["gone.txt"]}, ConfigError, "cannot read the text file gone.txt"),
            ({"prompt_output": {}}, WorkloadError, "prompt_output.num_tokens must be"),
        ],
    )
    def test_what_is_wrong_is_named(self, source: Path, fields: dict[str, Any], error: Any, said: str) -> None:
        with pytest.raises(error, match=said):
            generate_conversations(source, self.spec(**fields), Estimate(), 0)


class TestClients:
    async def test_each_turn_has_all_before_it_with_the_real_answers(self) -> None:
        crowd, received = await talked(answer_with_its_number, [conversation("a", 3)])
        assert [len(request.json["messages"]) for request in received] == [1, 3, 5]
        assert [message["content"] for message in received[2].json["messages"]] == [
            "question 0 of a", "turn 0", "question 1 of a", "turn 1", "question 2 of a",
        ]  # fmt: skip
        assert received[0].json["max_tokens"] == received[0].json["min_tokens"] == 5  # as long as the recorded answer
        (talk,) = crowd.finished
        assert talk.said[-1] == {"role": "assistant", "content": "turn 2"}

    async def test_figures_of_a_turn(self) -> None:
        crowd, _ = await talked(answer_with_its_number, [conversation("a", 2)])
        first, second = crowd.turns
        assert (first.input_num_turns, second.input_num_turns) == (1, 3)
        assert (first.input_num_tokens, second.input_num_tokens) == (10, 20)
        assert (second.output_num_tokens, second.output_num_chunks, second.output_num_first_chunk_tokens) == (2, 2, 1)
        assert first.approx_cached_percent == 0
        assert 0 < second.approx_cached_percent < 100
        assert 0 < first.ttft_ms <= first.latency_ms
        assert first.end_time_ms <= second.start_time_ms

    async def test_nobody_stops_while_conversations_are_unfinished(self) -> None:
        """Long ones and short ones, more than clients: every turn of every one is asked."""
        conversations = [conversation(str(at), 1 + at % 5) for at in range(13)]
        crowd, received = await talked(answer_with_its_number, conversations, clients=4, max_active=2)
        assert len(received) == len(crowd.turns) == sum(1 + at % 5 for at in range(13))
        assert {talk.conversation.id for talk in crowd.finished} == {str(at) for at in range(13)}

    async def test_early_stop_is_there_for_who_asks_for_it(self) -> None:
        conversations = [conversation("short", 1), conversation("long", 30)]
        crowd, _ = await talked(answer_with_its_number, conversations, clients=2, early_stop=True)
        assert 1 < len(crowd.turns) < 31

    async def test_a_question_without_recorded_answer_is_asked_too(self) -> None:
        crowd, received = await talked(answer_with_its_number, [conversation("a", 2, ends_with_user=True)])
        assert len(crowd.turns) == 2
        assert "max_tokens" not in received[1].json

    @pytest.mark.parametrize(
        ("limits", "fields"),
        [
            ((0, 0), (5, 5)),
            ((None, 50), (None, 50)),
            ((3, 50), (3, 50)),
            ((None, None), (None, None)),
            ((9, 4), (4, 4)),
        ],
    )
    async def test_limits_of_answers(self, limits: tuple[Any, Any], fields: tuple[Any, Any]) -> None:
        turn = TurnOptions("m", *limits)
        _, received = await talked(answer_with_its_number, [conversation("a", 1)], turn=turn)
        assert (received[0].json.get("min_tokens"), received[0].json.get("max_tokens")) == fields

    async def test_a_server_that_refuses_min_tokens_is_not_asked_for_it_again(self) -> None:
        def answer(request: Received) -> list[Piece]:
            if "min_tokens" in request.json:
                return [whole({"error": {"message": "Unrecognized request argument: min_tokens"}}, "400 Bad Request")]
            return answer_with_its_number(request)

        crowd, received = await talked(answer, [conversation("a", 3)])
        assert ["min_tokens" in request.json for request in received] == [True, False, False, False]
        assert (len(crowd.turns), crowd.with_minimum) == (3, False)

    async def test_a_rate_is_a_rate_and_not_a_pause_after_each_answer(self) -> None:
        """40 conversations of one slow turn each, due 200 times a second: answers do not hold arrivals up."""

        def slow(request: Received) -> list[Piece]:
            return [0.1, *answer_with_its_number(request)]

        conversations = [conversation(str(at), 1) for at in range(40)]
        crowd, _ = await talked(slow, conversations, rate=200.0, max_active=40)
        starts = sorted(turn.start_time_ms for turn in crowd.turns)
        assert len(starts) == 40
        assert starts[-1] < 40 * 100 / 4  # one after the other would take 4 s, and a pause between them longer still

    async def test_a_turn_that_cannot_leave_in_time_is_seen_to_be_late(self) -> None:
        def slow(request: Received) -> list[Piece]:
            return [0.05, *answer_with_its_number(request)]

        crowd, _ = await talked(slow, [conversation("a", 4)], rate=1000.0)
        assert max(turn.late_ms for turn in crowd.turns) > 50

    async def test_failures_are_tried_again_as_often_as_asked_and_then_counted(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("simserve.bench.multi_turn.clients.FIRST_RETRY_S", 0.01)
        count = 0

        def answer(request: Received) -> list[Piece]:
            nonlocal count
            count += 1
            return (
                [whole({}, "500 Oops")]
                if count in (1, 2) or "of bad" in str(request.body)
                else answer_with_its_number(request)
            )

        crowd, _ = await talked(answer, [conversation("good", 2), conversation("bad", 3)], max_retries=2)
        assert (len(crowd.turns), crowd.broken, len(crowd.failures)) == (2, 1, 1)
        assert crowd.failures[0].status == 500

    async def test_a_number_of_requests_is_kept_to(self) -> None:
        crowd, received = await talked(answer_with_its_number, [conversation("a", 9)], max_requests=4)
        assert len(received) == len(crowd.turns) == 4

    async def test_ids_are_sent_if_asked_for(self) -> None:
        _, received = await talked(answer_with_its_number, [conversation("a", 1)], send_conversation_id=True)
        assert received[0].json["conversation_id"] == received[0].headers["x-session-id"] == "a"

    async def test_stopping_lets_the_turn_under_way_end(self) -> None:
        import asyncio

        async with raw_server(lambda request: [0.1, *answer_with_its_number(request)]) as server:
            address = parse_address(server.url)
            options = ClientOptions(path="/v1/chat/completions", headers={}, turn=TurnOptions("m"))
            crowd = Crowd(address, options, Estimate(), deque([conversation("a", 5)]), Pool(address))
            crowd.start_s = perf_counter()
            running = asyncio.create_task(run_client(crowd, 0))
            await asyncio.sleep(0.05)
            crowd.stop()
            await running
            crowd.pool.close()
        assert len(crowd.turns) == 1


class TestStatistics:
    async def test_tails_are_shown_only_where_there_are_enough_turns(self) -> None:
        crowd, _ = await talked(answer_with_its_number, [conversation("a", 50), conversation("b", 50)])
        found = statistics(crowd.turns)
        assert list(found["ttft_ms"]) == ["count", "mean", "std", "min", "25%", "50%", "75%", "90%", "99%", "max"]
        assert "99%" not in statistics(crowd.turns[:99])["ttft_ms"]
        assert found["output_num_chunks"]["mean"] == 2  # every chunk is counted
        assert len(after_warmup(crowd.turns, 50)) == 50
        rows = statistics_rows(found)
        assert rows[0][-1] == "max"
        assert len(rows) == 1 + len(found)

    async def test_files(self, tmp_path: Path) -> None:
        crowd, _ = await talked(answer_with_its_number, [conversation("a", 3)])
        run = MultiTurnRun(crowd.turns, [], 0, 0, [("a", [])], 0, True, 0.5, 1.0, 1, False)
        paths = write_excel(tmp_path, run, {"model": "m"}, (0.0, 50.0), datetime(2026, 1, 2, 3, 4, 5))
        assert all(path.name.startswith("statistics_1_clients__02-01-2026_03-04-05") for path in paths)
        header, *rows = turn_rows(crowd.turns)
        assert header[-1] == "time_between_user_turns_sec"
        assert rows[0][-1] is None
        assert rows[1][-1] is not None
        assert json.dumps(rows)
