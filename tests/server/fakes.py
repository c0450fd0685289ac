"""A scripted engine: tokens at a fixed pace, no simulation, so that a test of the facade tests the facade."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

from simserve.engines.base import EngineStatus, GenerationRequest, RequestTiming, TokenEvent
from simserve.errors import EngineError, RequestError

BLOCK_TOKENS = 16
BLOCK_BYTES = 1024
BLOCKS = 1000


class ScriptedEngine:
    """Gives ``tokens_per_step`` tokens every ``step_s`` seconds to each sequence; a simulated step takes 10 ms."""

    def __init__(self, step_s: float = 0.0, tokens_per_step: int = 1, max_model_len: int = 256) -> None:
        self.step_s = step_s
        self.tokens_per_step = tokens_per_step
        self.max_model_len = max_model_len
        self.submitted: list[GenerationRequest] = []
        self.running: dict[str, GenerationRequest] = {}
        self.completed = 0
        self.aborted = 0
        self.stopping = False
        self.refuse: str | None = None
        self.broken: str | None = None
        self.break_at: int | None = None
        self.give_up_at: int | None = None

    def describe(self) -> dict[str, object]:
        return {"model": "test-model", "policy": "scripted"}

    async def start(self) -> None:
        self.stopping = False

    async def stop(self) -> None:
        self.stopping = True

    def submit(self, request: GenerationRequest) -> ScriptedStream:
        if self.broken:
            raise EngineError(self.broken)
        if self.refuse:
            raise RequestError(self.refuse)
        self.submitted.append(request)
        self.running[request.request_id] = request
        return ScriptedStream(self, request)

    def status(self) -> EngineStatus:
        tokens = sum(len(request.prompt_token_ids) for request in self.running.values())
        return EngineStatus(
            clock_s=0.5,
            waiting_requests=0,
            running_requests=len(self.running),
            completed_requests=self.completed,
            aborted_requests=self.aborted,
            steps=7,
            inflight_batches=min(1, len(self.running)),
            kv_blocks_total=BLOCKS,
            kv_blocks_used=-(-tokens // BLOCK_TOKENS),
            kv_block_bytes=BLOCK_BYTES,
        )


class ScriptedStream:
    """The tokens of one request."""

    def __init__(self, engine: ScriptedEngine, request: GenerationRequest) -> None:
        self._engine = engine
        self._request = request
        self._done = 0
        self._count = min(request.max_tokens, request.output_tokens or request.max_tokens)

    def __aiter__(self) -> ScriptedStream:
        return self

    async def __anext__(self) -> TokenEvent:
        engine, request = self._engine, self._request
        if request.request_id not in engine.running:
            raise StopAsyncIteration
        await asyncio.sleep(engine.step_s)
        if engine.stopping:
            del engine.running[request.request_id]
            return TokenEvent(self._done, 0, 0.0, "abort")
        if engine.break_at is not None and self._done >= engine.break_at:
            raise RuntimeError("the engine broke")
        if engine.give_up_at is not None and self._done >= engine.give_up_at:
            del engine.running[request.request_id]
            return TokenEvent(self._done, 0, 0.0, "error", error="the engine ran out of memory")
        index, tokens = self._done, min(engine.tokens_per_step, self._count - self._done)
        self._done += tokens
        time_s = self._done * 0.01
        if self._done < self._count:
            return TokenEvent(index, tokens, time_s)
        del engine.running[request.request_id]
        engine.completed += 1
        return TokenEvent(index, tokens, time_s, "length", RequestTiming(0.0, 0.0, 0.01, time_s, 16, 0))

    async def aclose(self) -> None:
        if self._engine.running.pop(self._request.request_id, None) is not None:
            self._engine.aborted += 1


class WordTokenizer:
    """One token per word, whose id is the word's length; a word's text has the space before it."""

    vocab_size = 1000

    def encode(self, text: str) -> list[int]:
        return self.split(text)[0]

    def split(self, text: str) -> tuple[list[int], list[str]]:
        pieces = re.findall(r"\s*\S+|\s+$", text)
        return [len(piece.strip()) for piece in pieces if piece.strip()], [piece for piece in pieces if piece.strip()]

    def text_of(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        return " ".join(f"t{token}" for token in token_ids)

    def token_bytes(self, token_id: int) -> bytes:
        return b"t%d" % token_id


class NumberedWords:
    """Answers that read "w0 w1 w2 ...", so that a test sees which tokens came."""

    def answer(
        self, seed_key: str, count: int, banned: frozenset[int] = frozenset(), banned_words: tuple[str, ...] = ()
    ) -> NumberedAnswer:
        return NumberedAnswer(count)


class NumberedAnswer:
    def __init__(self, count: int) -> None:
        self.token_ids = list(range(count))
        self.pieces = ["w0", *(f" w{at}" for at in range(1, count))]
