"""Writes simulated answers: reasoning, then JSON, tool calls or plain text, all of it a function of the key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from simserve.server.answers.lengths import REASONING, USUAL_LENGTH, drawn_length
from simserve.server.answers.script import Script
from simserve.server.answers.sources import AnyText, Source
from simserve.server.answers.tool_calls import Call, calls_for
from simserve.server.answers.wording import NO_RULES, Wording, WordRules
from simserve.server.formats import Wanted
from simserve.server.plans import ToolDelta
from simserve.server.tools import Function
from simserve.workload.lengths import LengthDistribution


class Tokenizer(Protocol):
    """What writing needs of a tokenizer."""

    def split(self, text: str) -> tuple[list[int], list[str]]:
        """The token ids of ``text`` and the stretch of it that each stands for."""
        ...


@dataclass(frozen=True)
class Order:
    """What is to be written. The text depends on ``key`` and on what is asked; ``most`` tokens only cut it.

    ``asked`` is the question. ``has_limit`` says that the client stated ``most``; ``least`` tokens there are at least,
    as many as ``most`` with ``ignore_eos``. ``effort`` is that of reasoning, None for none; ``is_told`` says whether
    the client hears of it. ``functions`` are to be called; ``call_id`` begins the ids of calls.
    """

    key: str
    asked: str
    most: int
    has_limit: bool
    least: int = 0
    ignore_eos: bool = False
    wanted: Wanted | None = None
    functions: Sequence[Function] = ()
    parallel: bool = True
    call_id: str = "call"
    effort: str | None = None
    is_told: bool = True
    thinking_budget: int | None = None
    rules: WordRules = NO_RULES


@dataclass(frozen=True)
class Habits:
    """How all answers of a server are: where their words come from, and how long they are.

    Without ``length`` an answer with a limit has just that many tokens, which makes benchmarks predictable.
    """

    source: Source = field(default_factory=AnyText)
    length: LengthDistribution | None = None


PLAIN = Habits()
"""Sentences, as many as are wanted."""


class AnswerWriter:
    """Writes for one tokenizer; ``wording`` has sentences for it."""

    def __init__(self, tokenizer: Tokenizer, wording: Wording, habits: Habits) -> None:
        self._tokenizer = tokenizer
        self._wording = wording
        self._habits = habits

    def write(self, order: Order) -> Script:
        """The answer; raises :class:`simserve.server.errors.ApiError` (400) where nothing satisfies a schema."""
        script = Script()
        self._reason(script, order)
        room = order.most - len(script)
        if order.functions:
            self._call(script, order)
        elif order.wanted is not None:
            script.say(*self._tokenizer.split(order.wanted.text(order.key, order.asked)))
            self._pad(script, order)
        elif room > 0:
            self._talk(script, order, room)
        else:
            script.is_whole = False
        script.cut(order.most)
        return script

    def expected(self, order: Order) -> int:
        """About how many tokens there will be, to know whether writing them takes long."""
        return order.most if order.has_limit or order.ignore_eos else USUAL_TOKENS

    def _reason(self, script: Script, order: Order) -> None:
        if order.effort is None or order.effort == "none":
            return
        key = f"{order.key}|reasoning"
        count = drawn_length(REASONING[order.effort], f"{key}|{order.effort}")
        if order.thinking_budget is not None:
            count = min(count, order.thinking_budget)
        count = min(count, order.most)
        if count:
            answer = self._wording.answer(key, count, NO_RULES)
            script.think(answer.token_ids, answer.pieces, told=order.is_told)

    def _talk(self, script: Script, order: Order, room: int) -> None:
        """Plain text, of the length that is wanted or that the source has."""
        text = self._habits.source.answer_to(order.asked, order.key)
        if text:
            script.say(*self._tokenizer.split(text))
            self._repeat(script, order, text)
            return
        length = self._habits.length
        if order.ignore_eos or (order.has_limit and length is None):
            count = room
            script.is_whole = False
        else:
            drawn = drawn_length(length or USUAL_LENGTH, order.key)
            count = max(drawn, order.least - len(script), 1)
            script.is_whole = count <= room
        answer = self._wording.answer(order.key, min(count, room), order.rules)
        script.say(answer.token_ids, answer.pieces)

    def _repeat(self, script: Script, order: Order, text: str) -> None:
        """Say a text again until there are tokens enough."""
        ids, pieces = self._tokenizer.split("\n" + text)
        wanted = order.most if order.ignore_eos else order.least
        while len(script) < wanted:
            script.say(ids, pieces)
        script.is_whole = not order.ignore_eos

    def _pad(self, script: Script, order: Order) -> None:
        """White space behind JSON, which stays JSON, until there are tokens enough."""
        missing = (order.most if order.ignore_eos else order.least) - len(script)
        if missing > 0:
            ids, _ = self._tokenizer.split("\n")
            script.say(ids[-1:] * missing, ["\n"] * missing)
        script.is_whole = not (order.ignore_eos and missing > 0)

    def _call(self, script: Script, order: Order) -> None:
        """Tool calls in the frame in which Qwen and Hermes models write them; clients hear what is in it."""
        for at, call in enumerate(calls_for(order.functions, order.key, order.asked, parallel=order.parallel)):
            self._write_call(script, call, at, f"{order.call_id}{at}")
        missing = (order.most if order.ignore_eos else order.least) - len(script)
        script.hide(self._tokenizer.split("\n")[0][-1:] * max(0, missing))
        script.is_whole = not (order.ignore_eos and missing > 0)

    def _write_call(self, script: Script, call: Call, at: int, call_id: str) -> None:
        opening, _ = self._tokenizer.split(f'<tool_call>\n{{"name": "{call.name}", "arguments": ')
        script.hide(opening[:-1])
        script.call(opening[-1:], [ToolDelta(at, "", call_id, call.name)])
        script.calls += 1
        ids, pieces = self._tokenizer.split(call.arguments)
        script.call(ids, [ToolDelta(at, piece) for piece in pieces])
        script.hide(self._tokenizer.split("}\n</tool_call>")[0])


USUAL_TOKENS = 512
"""What an answer without a limit is taken to have, when it is asked whether writing it takes long."""
