"""A sweep as a whole: nothing is lost, nothing is done twice, whoever does it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from simserve.errors import ConfigError, EngineError
from simserve.sweep.executors import InThisProcess, LocalProcesses
from simserve.sweep.executors.base import Done, Item
from simserve.sweep.expand import jobs_of
from simserve.sweep.jobs import Outcome
from simserve.sweep.run import Sweep, run_sweep
from simserve.sweep.spec import spec_from
from simserve.sweep.store import Store, open_store
from sweep.runs import fake, fake_that_kills_its_process

AXES = {"hardware": ["A100", "L4"], "max_num_seqs": [1, 2, 3, 4, 5]}


def sweep(folder: Path, executor: Any = None, run_once: Any = fake, **spec: Any) -> Sweep:
    jobs = jobs_of(spec_from({"axes": AXES} | spec, "here"))
    with Store(folder) as store:
        return run_sweep(jobs, run_once, executor or InThisProcess(), store, lambda *_: None)


def without_times(outcomes: Sequence[Outcome]) -> list[tuple[Any, ...]]:
    return [(one.key, one.settings, one.result, one.error, one.search) for one in outcomes]


def test_processes_find_what_one_process_finds(tmp_path: Path) -> None:
    here = sweep(tmp_path / "here")
    there = sweep(tmp_path / "there", LocalProcesses(2))
    assert without_times(there.outcomes) == without_times(here.outcomes)
    assert [one.key for one in there.outcomes] == [job.key for job in there.jobs]


def test_a_search_is_the_same_wherever_it_is_done(tmp_path: Path) -> None:
    searched: dict[str, Any] = {"slo": "ttft:p99=1s", "capacity": {"of": "request_rate"}}
    here = sweep(tmp_path / "here", **searched)
    there = sweep(tmp_path / "there", LocalProcesses(2), **searched)
    assert without_times(there.outcomes) == without_times(here.outcomes)
    loads = [one.search["load"] for one in here.outcomes[:5]]
    assert loads == [pytest.approx(10.0 * seqs, rel=0.02) for seqs in (1, 2, 3, 4, 5)]


class StopsAfter:
    """Ends like a user who has seen enough."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.items: Sequence[Any] = ()

    def map(self, do: Callable[[Item], Done], items: Sequence[Item], batch: int = 1) -> Iterator[Done]:
        self.items = items
        for number, item in enumerate(items):
            if number == self.count:
                raise KeyboardInterrupt
            yield do(item)


def test_what_was_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        sweep(tmp_path, StopsAfter(4))
    rest = StopsAfter(100)
    done = sweep(tmp_path, rest)
    assert (done.known, len(rest.items), len(done.outcomes)) == (4, 6, 10)


def test_a_changed_spec_adds_only_what_is_new(tmp_path: Path) -> None:
    sweep(tmp_path)
    rest = StopsAfter(100)
    done = sweep(tmp_path, rest, axes={**AXES, "hardware": ["L4", "H200"]})
    assert [item.settings["hardware"] for item in rest.items] == ["H200"] * 5
    assert len(done.outcomes) == 10


def test_settings_that_cannot_be_are_an_outcome(tmp_path: Path) -> None:
    done = sweep(tmp_path, axes={"max_num_seqs": [12, 13]})
    assert [one.error for one in done.outcomes] == [None, "13 brings bad luck; choose another number"]


def test_a_process_that_is_killed_ends_the_sweep_in_a_sentence_and_keeps_the_rest(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="was killed, perhaps for want of memory"):
        sweep(tmp_path, LocalProcesses(2), fake_that_kills_its_process)
    assert len(sweep(tmp_path).outcomes) == 10


def test_a_store_that_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot keep the sweep's runs in"):
        Store(tmp_path / "file")
    with pytest.raises(ConfigError, match="there is no sweep in"):
        open_store(tmp_path)
    (tmp_path / "runs.sqlite").write_text("this is no database, whatever its name says")
    with pytest.raises(ConfigError, match="file is not a database"):
        open_store(tmp_path)
