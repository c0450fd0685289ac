"""What several processes counted, added up."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from simserve.server.metrics import HttpCounts

answers = st.lists(
    st.tuples(
        st.sampled_from(["/v1/models", "/v1/completions"]),
        st.sampled_from(["GET", "POST"]),
        st.sampled_from(["2xx", "4xx"]),
        st.integers(0, 100_000).map(lambda ms: ms / 1024),  # sums of these are exact
    )
)


def counted(seen: list[Any]) -> HttpCounts:
    counts = HttpCounts()
    counts.generating = len(seen)
    for answer in seen:
        counts.note(*answer)
    return counts


def page(counts: HttpCounts) -> list[str]:
    registry = CollectorRegistry()
    registry.register(counts)
    return sorted(generate_latest(registry).decode().splitlines())


@given(answers, answers)
def test_two_processes_together_are_one_that_saw_it_all(here: list[Any], there: list[Any]) -> None:
    both = HttpCounts()
    for seen in (here, there):
        both.include(HttpCounts.from_body(orjson.loads(orjson.dumps(counted(seen).body()))))
    assert page(both) == page(counted(here + there))
    assert both.generating == len(here + there)
