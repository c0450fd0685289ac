"""The client held against a server that logs when it sent what."""

from __future__ import annotations

import pytest

from simserve.bench.load.schedule import Shape
from simserve.bench.self_test.log import read_log
from simserve.bench.self_test.measure import fixed_timing_server, measure_own_error
from simserve.bench.self_test.server import Timing
from simserve.bench.wire.address import parse_address
from simserve.bench.wire.ask import ask
from simserve.errors import ServerError

SHORT = Timing(ttft_s=0.02, itl_s=0.005, tokens=4)


def test_the_server_logs_arrivals_and_sendings_by_the_clients_clock() -> None:
    with fixed_timing_server(SHORT) as url:
        with pytest.raises(ServerError, match="has answered nothing"):
            read_log(url)
        for headers in ({"X-Request-Id": "first"}, {}):
            told = ask(parse_address(url), "/v1/completions", {"prompt": "hello"}, headers)
            assert told.body.endswith(b"data: [DONE]\n\n")
        log = read_log(url)
    assert set(log.rows) == {"first", "unnamed-0"}
    assert all(len(row) == 1 + SHORT.tokens for row in log.rows.values())
    assert (log.lateness_s(SHORT) >= 0).all()  # never early
    assert (log.ttft_s() >= SHORT.ttft_s).all()
    assert log.e2el_s() == pytest.approx(log.ttft_s() + log.itl_s().reshape(2, -1).sum(axis=1))


@pytest.mark.parametrize("processes", [1, 2])
def test_no_error_is_below_nothing(processes: int) -> None:
    """A request arrives after it was sent, and a token is seen after it was sent."""
    test = measure_own_error(Shape(max_concurrency=4), processes, 4, 0.0, lambda progress, elapsed_s: None, SHORT)
    assert test.requests == 8  # two rounds
    assert min(test.stamp_mean_s, test.ttft_mean_s, test.e2el_mean_s) > 0
    assert test.server_first_s > 0
    assert 0 < test.rate < 1


def test_a_rate_is_tested_too() -> None:
    test = measure_own_error(Shape(request_rate=40.0), 1, 1000, 40.0, lambda progress, elapsed_s: None, SHORT)
    assert test.requests == 200  # five seconds of it
    assert test.stamp_mean_s > 0
