"""Who waits for a prefix from a lower tier, worked out by hand: blocks of four tokens, what is there is told."""

from __future__ import annotations

from collections.abc import Sequence

from simserve.scheduling import Request, SchedulerLimits
from simserve.scheduling.fetching import Fetch, FetchingVllmV1
from simserve.scheduling.fetching_kv_cache import Unit


class Holds:
    """Tiers with these units."""

    def __init__(self, *units: int) -> None:
        self.units = units

    def find(self, units: Sequence[Unit]) -> int:
        found = [unit for unit in units if unit[0][0] in self.units]  # type: ignore[index]
        return len(found)

    def touch(self, units: Sequence[Unit]) -> None:
        pass


class Engine:
    """A scheduler whose steps are written down as (who decodes, chunks as (name, tokens, cached tokens))."""

    def __init__(self, *units: int, num_blocks: int = 100, max_num_batched_tokens: int = 16) -> None:
        limits = SchedulerLimits(
            num_blocks=num_blocks, block_size=4, max_num_seqs=8, max_num_batched_tokens=max_num_batched_tokens
        )
        self.scheduler = FetchingVllmV1(limits)
        self.scheduler.tiers = Holds(*units)

    def add(self, name: str, input_tokens: int, output_tokens: int, *units: int) -> Request:
        request = Request(name, input_tokens, output_tokens, units=units, unit_tokens=4)
        self.scheduler.add(request)
        return request

    def step(self) -> tuple[str, list[tuple[str, int, int]]]:
        plan = self.scheduler.schedule(list_decodes=True)
        self.scheduler.complete(plan)
        chunks = [(str(chunk.request.request_id), chunk.tokens, chunk.context_tokens) for chunk in plan.chunks]
        return "".join(str(request.request_id) for request in plan.decodes), chunks

    def begun(self) -> Fetch:
        (fetch,) = self.scheduler.begun
        self.scheduler.begun = []
        return fetch


def test_who_fetches_lets_others_start_and_begins_where_the_prefix_ends() -> None:
    engine = Engine(1, 2)
    first = engine.add("A", 10, 2, 1, 2)
    engine.add("B", 6, 3)
    assert engine.step() == ("", [("B", 6, 0)])
    assert engine.scheduler.fetching_requests == 1
    assert engine.step() == ("B", [])
    assert engine.scheduler.fetched(engine.begun())
    assert engine.step() == ("B", [("A", 2, 8)])
    assert engine.step() == ("A", [])
    assert first.cached_tokens == 8
    assert engine.scheduler.blocks.used_blocks == 0


def test_one_token_is_left_to_compute_so_that_a_whole_prompt_is_never_fetched() -> None:
    engine = Engine(1, 2)
    engine.add("A", 8, 1, 1, 2)
    engine.step()
    fetch = engine.begun()
    assert [run.blocks for run in fetch.coming] == [1]
    engine.scheduler.fetched(fetch)
    assert engine.step() == ("", [("A", 4, 4)])


def test_only_what_the_device_has_forgotten_is_fetched() -> None:
    engine = Engine(1, 2, 3)
    engine.scheduler.tiers = None
    engine.add("A", 5, 1, 1)
    engine.step()
    engine.scheduler.tiers = Holds(1, 2, 3)
    engine.add("B", 13, 1, 1, 2, 3)
    engine.step()
    fetch = engine.begun()
    assert [run.key[0] for run in fetch.coming] == [2, 3]  # type: ignore[index]
    assert engine.scheduler.blocks.used_blocks == 3


def test_while_it_comes_nobody_else_finds_it() -> None:
    """B has the same prompt and comes while A's prefix is on its way: it fetches for itself, as in vLLM."""
    engine = Engine(1)
    engine.add("A", 6, 1, 1)
    engine.step()
    engine.add("B", 6, 1, 1)
    engine.step()
    one, two = engine.scheduler.begun
    engine.scheduler.fetched(one)
    engine.scheduler.fetched(two)
    assert engine.step() == ("", [("B", 2, 4), ("A", 2, 4)])
    assert engine.scheduler.blocks.used_blocks == 0


def test_a_hang_up_gives_the_blocks_back_whether_all_has_come_or_not() -> None:
    for come in (False, True):
        engine = Engine(1, 2)
        engine.add("A", 10, 2, 1, 2)
        engine.step()
        fetch = engine.begun()
        if come:
            engine.scheduler.fetched(fetch)
        assert engine.scheduler.blocks.used_blocks == 2
        engine.scheduler.abort("A")
        assert engine.scheduler.blocks.used_blocks == 0
        assert not engine.scheduler.fetched(fetch)
        assert not engine.scheduler.has_requests


def test_who_holds_what_came_never_keeps_the_first_in_line_from_starting() -> None:
    """Seven blocks. A and B fetch two each of their four; neither has the other two while both hold theirs."""
    engine = Engine(1, 2, 11, 12, num_blocks=7 + 1)
    engine.add("A", 16, 1, 1, 2)
    engine.add("B", 16, 1, 11, 12)
    engine.step()
    for fetch in list(engine.scheduler.begun):
        engine.scheduler.fetched(fetch)
    steps = [engine.step() for _ in range(2)]
    assert steps[0] == ("", [("B", 8, 8)])
    assert not engine.scheduler.running
    assert engine.scheduler.begun or steps[1][1] == [("A", 8, 8)]


def test_nothing_is_fetched_for_which_there_is_no_room() -> None:
    engine = Engine(1, 2, num_blocks=6 + 1, max_num_batched_tokens=64)
    engine.add("A", 12, 4)
    engine.add("B", 20, 1, 1, 2)
    assert engine.step() == ("", [("A", 12, 0)])
    assert not engine.scheduler.begun
    assert [engine.step()[0] for _ in range(3)] == ["A", "A", "A"]
    engine.step()
    assert engine.begun().request.request_id == "B"
