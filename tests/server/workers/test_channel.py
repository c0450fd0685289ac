"""Messages arrive whole and in order however the socket cuts them, and mean what they meant."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from simserve.engines.base import GenerationRequest, RequestTiming, SamplingParams, TokenEvent, TokenLogprob
from simserve.server.errors import ApiError
from simserve.server.limits.rates import Verdict
from simserve.server.workers.channel import Channel
from simserve.server.workers.codec import error_body, error_from, event_from, request_from, verdict_from


class Wire:
    """What a channel writes."""

    def __init__(self) -> None:
        self.sent = b""

    def write(self, data: bytes) -> None:
        self.sent += data

    def is_closing(self) -> bool:
        return False


def channel(received: list[Any]) -> tuple[Channel, Wire]:
    one, wire = Channel(received.append, lambda: None), Wire()
    one.connection_made(wire)  # type: ignore[arg-type]
    return one, wire


messages = st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=80) | st.integers(-9, 9), max_size=4))


@given(messages, st.lists(st.integers(1, 40), max_size=30))
def test_messages_arrive_whole_and_in_order(sent: list[Any], cuts: list[int]) -> None:
    received: list[Any] = []
    sender, wire = channel([])
    receiver, _ = channel(received)
    for message in sent:
        sender.send(message)
    rest = wire.sent
    for cut in cuts:
        receiver.data_received(rest[:cut])
        rest = rest[cut:]
    receiver.data_received(rest)
    assert received == sent


def across(value: Any) -> Any:
    """As the other side gets it."""
    return orjson.loads(orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS))


def test_a_request_means_the_same_on_the_other_side() -> None:
    sampling = SamplingParams(stop=("a", "b"), stop_token_ids=(7,), logit_bias={5: -1.5}, seed=2**62, logprobs=3)
    request = GenerationRequest("id", [1, 2, 3], 9, 4, priority=-2, sampling=sampling, cache_salt="law")
    assert request_from(across(request)) == request


def test_an_event_means_the_same_on_the_other_side() -> None:
    timing = RequestTiming(0.1, 0.2, 0.3, 0.4, 16, 1)
    logprob = TokenLogprob(5, -0.25, ((5, -0.25), (6, -1.5)))
    for event in (
        TokenEvent(0, 1, 0.5),
        TokenEvent(3, 2, 0.5, "stop", timing, "text", (5, 6), (logprob, logprob), "stop here"),
        TokenEvent(0, 0, 0.0, "error", error="no memory"),
    ):
        assert event_from(across(event)) == event


def test_errors_and_verdicts_too() -> None:
    error = ApiError("no", status=429, param="p", code="c", kind="tokens", headers={"Retry-After": "3"})
    assert vars(error_from(across(error_body(error)))) == vars(error)
    for wait_s in (0.0, 1.5, float("inf")):
        verdict = Verdict(False, {"a": "b"}, wait_s)
        assert verdict_from(across(verdict)) == verdict
