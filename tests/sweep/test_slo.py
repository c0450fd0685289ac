"""Limits on latencies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simserve.errors import ConfigError
from simserve.sweep.slo import Term, parse_slo

RESULT = {"failed": 0, "p99_ttft_ms": 1900.0, "p90_tpot_ms": 50.0, "mean_e2el_ms": None}


def test_terms_name_metric_statistic_and_limit() -> None:
    slo = parse_slo("ttft:p99=2s tpot:p90=50ms itl:mean=40 e2el:median=1.5s")
    assert slo.terms == (
        Term("TTFT", "p99", 2000.0), Term("TPOT", "p90", 50.0),
        Term("ITL", "mean", 40.0), Term("E2E", "median", 1500.0),
    )  # fmt: skip
    assert [term.key for term in slo.terms] == ["p99_ttft_ms", "p90_tpot_ms", "mean_itl_ms", "median_e2el_ms"]
    assert slo.percentiles == [90.0, 99.0]


def test_a_limit_alone_is_of_the_p99() -> None:
    assert parse_slo(["ttft:200", "tpot:50"]) == parse_slo("ttft:p99=200ms,tpot:p99=50ms")


def test_a_limit_that_is_just_reached_holds() -> None:
    assert parse_slo("ttft:p99=2s tpot:p90=50ms").met(RESULT)
    assert parse_slo("ttft:p99=1.8s tpot:p90=50ms").missed(RESULT) == [Term("TTFT", "p99", 1800.0)]


def test_what_no_request_has_misses_nothing_and_a_refused_request_misses_all() -> None:
    slo = parse_slo("e2e:mean=1ms")
    assert slo.met(RESULT)
    assert not slo.met({**RESULT, "failed": 1})


@given(st.sampled_from(["ttft", "tpot", "itl", "e2e"]), st.floats(0.5, 99.9), st.floats(0.001, 1e6))
def test_what_is_written_is_read_again(metric: str, percent: float, limit: float) -> None:
    slo = parse_slo(f"{metric}:p{percent:.1f}={limit:.3f}")
    assert parse_slo(str(slo)).percentiles == slo.percentiles
    assert parse_slo(str(slo)).terms[0].limit_ms == pytest.approx(slo.terms[0].limit_ms, rel=1e-4)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "at least one limit"),
        ("speed:p99=1s", "'speed:p99=1s' is no SLO"),
        ("ttft=1s", "'ttft=1s' is no SLO"),
        ("ttft:p101=1s", "percentile 101"),
        ("ttft:p99=0s", "a limit of 0"),
        ("ttft:p99=1.2.3", "'1.2.3' in the SLO"),
        ("ttft:p99=1s ttft:p99=2s", "p99 of TTFT twice"),
    ],
)
def test_other_texts_are_refused(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence.replace("(", r"\(")):
        parse_slo(text)
