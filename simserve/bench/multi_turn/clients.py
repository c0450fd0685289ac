"""The clients of one process: each takes conversations from a common queue and carries every one of them to its end."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Literal

import orjson

from simserve.bench.backends import find_backend
from simserve.bench.measure.outcome import Failure, Outcome, outcome_of
from simserve.bench.multi_turn.conversations import ASSISTANT, Conversation
from simserve.bench.multi_turn.turns import Turn, TurnOptions, body_of, measured_turn
from simserve.bench.tokens import TokenCounter
from simserve.bench.wire.address import Address
from simserve.bench.wire.connection import Connection
from simserve.bench.wire.encode import Body, encode_request
from simserve.bench.wire.exchange import Exchange, finished
from simserve.bench.wire.pool import Pool
from simserve.bench.wire.send import send

SECONDS_PER_TOKEN = 0.2
"""A request may take this long per token that it asks for, if that is more than --request-timeout-sec."""

FIRST_RETRY_S, RETRY_JITTER = 1.0, 0.1
MINIMUM_REFUSED = ("min_tokens", "seed", "unrecognized", "unknown", "unsupported", "extra")
"""Words by which servers say that they do not know a field."""

Sampling = Literal["round_robin", "random"]


@dataclass(frozen=True)
class ClientOptions:
    """How clients behave. ``rate`` is turns per second of each client (0: the next one when the last is answered).

    ``max_requests`` is for each client; ``early_stop`` ends all of them as soon as one has nothing left to do.
    """

    path: str
    headers: dict[str, str]
    turn: TurnOptions
    rate: float = 0.0
    max_requests: int | None = None
    max_active: int = 1
    sampling: Sampling = "round_robin"
    early_stop: bool = False
    max_retries: int = 0
    timeout_s: float = 120.0
    send_conversation_id: bool = False
    seed: int = 0


@dataclass
class Talk:
    """A conversation under way: what was said so far, with the server's own answers, and what comes next.

    ``tokens[i]`` is the length of ``said[i]``, counted once.
    """

    conversation: Conversation
    said: list[dict[str, str]] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    place: int = 0

    def next_question(self, counter: TokenCounter) -> None:
        """Say the next message of the user, and before the first what stands before it."""
        last = self.conversation.first_turn if self.place == 0 else self.place
        for message in self.conversation.messages[self.place : last + 1]:
            self.said.append({"role": message.role, "content": message.content})
            self.tokens.append(counter.count(message.content))
        self.place = last + 1

    def answered(self, text: str, tokens: int) -> None:
        """The server said ``text`` where the recording has its answer."""
        self.said.append({"role": ASSISTANT, "content": text})
        self.tokens.append(tokens)
        self.place += 1

    @property
    def is_over(self) -> bool:
        """Whether the user has nothing more to say."""
        return self.place >= len(self.conversation.messages)


@dataclass
class Crowd:
    """What all clients of one process share, and what they did."""

    address: Address
    options: ClientOptions
    counter: TokenCounter
    queue: deque[Conversation]
    pool: Pool
    start_s: float = 0.0
    with_minimum: bool = True
    stopping: bool = False
    turns: list[Turn] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    finished: list[Talk] = field(default_factory=list)
    broken: int = 0
    mismatches: int = 0
    sent: int = 0
    under_way: dict[Exchange, Connection] = field(default_factory=dict)

    def stop(self) -> None:
        """Send nothing more; answers under way may finish."""
        self.stopping = True

    def abort(self) -> None:
        """Do not wait for them either."""
        self.stopping = True
        for connection in list(self.under_way.values()):
            connection.give_up("interrupted")


async def run_client(crowd: Crowd, client_id: int) -> None:
    """One client: several conversations at a time, one request at a time unless its rate asks for more."""
    options = crowd.options
    rng = random.Random(f"{options.seed}-{client_id}")
    active: deque[Talk] = deque()
    busy: dict[asyncio.Task[None], Talk] = {}
    sent, due_s = 0, crowd.start_s
    while not crowd.stopping and (options.max_requests is None or sent < options.max_requests):
        while len(active) + len(busy) < options.max_active and crowd.queue:
            active.append(Talk(crowd.queue.popleft()))
        if not active and not busy:
            break
        if options.rate > 0:
            due_s += rng.expovariate(options.rate)
            await asyncio.sleep(max(due_s - perf_counter(), 0.0))
        while not active and busy:  # all of them wait for answers
            await _one_done(busy, active)
        if not active or crowd.stopping:
            continue
        if options.sampling == "random":
            active.rotate(-rng.randrange(len(active)))
        talk = active.popleft()
        sent += 1
        now = perf_counter()
        task = asyncio.create_task(_take_turn(crowd, talk, client_id, due_s if options.rate > 0 else now, rng))
        busy[task] = talk
        if options.rate <= 0:
            await _one_done(busy, active)
    while busy:
        await _one_done(busy, active)
    if options.early_stop and not crowd.queue and not active:
        crowd.stop()


async def _one_done(busy: dict[asyncio.Task[None], Talk], active: deque[Talk]) -> None:
    """Wait for an answer; its conversation goes on, at the end of the row, unless it is over."""
    done, _ = await asyncio.wait(busy, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        talk = busy.pop(task)
        task.result()
        if not talk.is_over:
            active.append(talk)


async def _take_turn(crowd: Crowd, talk: Talk, client_id: int, due_s: float, rng: random.Random) -> None:
    """Ask the next question until it is answered, or give the conversation up."""
    talk.next_question(crowd.counter)
    outcome = await ask_turn(crowd, talk, due_s)
    for attempt in range(crowd.options.max_retries):
        if outcome.ok or crowd.stopping:
            break
        pause_s = FIRST_RETRY_S * 2**attempt * rng.uniform(1 - RETRY_JITTER, 1 + RETRY_JITTER)
        await asyncio.sleep(pause_s)
        outcome = await ask_turn(crowd, talk, due_s)
    conversation = talk.conversation
    if outcome.failure is not None:
        crowd.failures.append(outcome.failure)
        crowd.broken += 1
        talk.place = len(conversation.messages)
        return
    turn = measured_turn(
        outcome, crowd.counter, talk.tokens,
        conversation_id=conversation.id, client_id=client_id, start_s=crowd.start_s, due_s=due_s,
    )  # fmt: skip
    crowd.turns.append(turn)
    if talk.place < len(conversation.messages):
        recorded = conversation.messages[talk.place]
        crowd.mismatches += recorded.tokens is None and recorded.content != outcome.text
    talk.answered(outcome.text, turn.output_num_tokens)
    if talk.is_over:
        crowd.finished.append(talk)


async def ask_turn(crowd: Crowd, talk: Talk, due_s: float) -> Outcome:
    """Send what was said so far; a server that refuses ``min_tokens`` is asked again without, and so ever after."""
    outcome = await _ask(crowd, talk, due_s)
    refused = outcome.failure is not None and outcome.failure.status in (400, 422) and crowd.with_minimum
    if refused and outcome.failure is not None:
        words = outcome.failure.message.lower()
        if any(word in words for word in MINIMUM_REFUSED):
            crowd.with_minimum = False
            return await _ask(crowd, talk, due_s)
    return outcome


async def _ask(crowd: Crowd, talk: Talk, due_s: float) -> Outcome:
    options = crowd.options
    recorded = _recorded_tokens(crowd, talk)
    fields = body_of(options.turn, talk.said, recorded, with_minimum=crowd.with_minimum)
    headers = dict(options.headers)
    if options.send_conversation_id:
        fields["conversation_id"] = talk.conversation.id
        headers["X-Session-ID"] = talk.conversation.id
    body = Body("application/json", orjson.dumps(fields))
    index = crowd.sent
    crowd.sent += 1
    request = encode_request(index, crowd.address, options.path, headers, body)
    exchange = Exchange(index, f"turn-{talk.conversation.id}-{index}", due_s, perf_counter())
    timeout_s = max(options.timeout_s, SECONDS_PER_TOKEN * (fields.get("max_tokens") or 0))
    await send(crowd.pool, exchange, request.with_id(exchange.request_id), timeout_s, crowd.under_way)
    return outcome_of(finished(exchange), find_backend("openai-chat"), keep_text=True)


def _recorded_tokens(crowd: Crowd, talk: Talk) -> int | None:
    """How long the answer was that stands in the recording, in tokens."""
    messages: Sequence[object] = talk.conversation.messages
    if talk.place >= len(messages):
        return None
    recorded = talk.conversation.messages[talk.place]
    return recorded.tokens if recorded.tokens is not None else max(crowd.counter.count(recorded.content), 1)


def first_turns(conversations: Sequence[Conversation]) -> list[Conversation]:
    """The first question of each, for a warm-up."""
    return [replace(one, messages=one.messages[: one.first_turn + 1]) for one in conversations]
