"""Tokens in order and in slices, and what the next ones need made ready when nothing is due."""

from __future__ import annotations

import math
import time
from typing import Any

from simserve.engines.base import GenerationRequest, TokenEvent
from simserve.engines.clock import AT_ONCE
from simserve.engines.handout import HandOut, LiveRequest
from simserve.engines.streams import TokenStream


class Sink:
    def __init__(self) -> None:
        self.heard: list[str] = []

    def step(self, tokens: int) -> None:
        self.heard.append("token")

    def prepare(self) -> None:
        self.heard.append("ready")

    def event(self, event: TokenEvent) -> None:
        self.heard.append(str(event.finish_reason))

    def failed(self, error: Exception) -> None:
        raise AssertionError


def live(count: int) -> tuple[list[LiveRequest], list[Sink]]:
    requests, sinks = [], [Sink() for _ in range(count)]
    for at, sink in enumerate(sinks):
        stream = TokenStream(on_close=lambda: None)
        stream.deliver_to(sink)
        wanted = GenerationRequest(f"r{at}", [1], 5)
        requests.append(LiveRequest(wanted, stream, arrival_s=0.0, unit_tokens=16))
    return requests, sinks


def all_ready(hand_out: HandOut) -> int:
    """Have everything made ready; in how many slices."""
    slices = 1
    while not hand_out.prepare(math.inf):
        slices += 1
    return slices


def test_streams_get_ready_after_their_token_and_not_twice() -> None:
    hand_out, (requests, sinks) = HandOut(), live(40)
    hand_out.add(requests, (), 0.1, time.monotonic())
    assert hand_out.work(math.inf)
    assert all(sink.heard == ["token"] for sink in sinks)
    all_ready(hand_out)
    all_ready(hand_out)
    assert all(sink.heard == ["token", "ready"] for sink in sinks)


def test_what_is_due_again_is_not_made_ready_first() -> None:
    hand_out, (requests, sinks) = HandOut(), live(40)
    hand_out.add(requests, (), 0.1, time.monotonic())
    hand_out.work(math.inf)
    assert not hand_out.prepare(0.0)  # a slice that was over before it began
    hand_out.add(requests, (), 0.2, time.monotonic())
    assert hand_out.work(math.inf)
    all_ready(hand_out)
    last: list[Any] = [sink.heard[-3:] for sink in sinks]
    assert last == [["ready", "token", "ready"]] * 16 + [["token", "token", "ready"]] * 24


def test_at_infinite_speed_and_for_who_has_ended_nothing_is_made_ready() -> None:
    hand_out, (requests, sinks) = HandOut(), live(3)
    hand_out.add(requests, (), 0.1, AT_ONCE)
    hand_out.work(math.inf)
    assert hand_out.prepare(math.inf)
    hand_out.add(requests, (), 0.2, time.monotonic())
    hand_out.work(math.inf)
    requests[0].stream.finish("abort", 0.2)
    all_ready(hand_out)
    assert [sink.heard for sink in sinks] == [["token", "token", "abort"]] + [["token", "token", "ready"]] * 2
