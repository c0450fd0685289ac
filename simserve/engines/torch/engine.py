"""The torch engine as the server sees it: a thread of its own computes, the event loop is only told."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import torch

from simserve.config import EngineOptions
from simserve.engines.base import EngineStatus, GenerationRequest, RequestTiming
from simserve.engines.streams import TokenStream
from simserve.engines.torch.core import EngineCore, Output, StepRecord
from simserve.engines.torch.sequence import Sequence as TorchSequence
from simserve.engines.torch.setup import load_core
from simserve.errors import EngineError, RequestError
from simserve.models import ModelSpec
from simserve.scheduling import POLICIES, Scheduler

Note = Callable[[EngineCore], None]
"""What the event loop asks of the engine's thread; done between two steps."""


class TorchEngine:
    """See :class:`simserve.engines.base.Engine`; it runs once, from :meth:`start` to :meth:`stop`.

    The model is built in the thread that steps it, because a second thread that uses torch gets a second team of
    OpenMP threads, and both get slow.
    """

    def __init__(self, build: Callable[[], EngineCore], threads: int | None = None) -> None:
        self._inbox: queue.SimpleQueue[Note | None] = queue.SimpleQueue()
        self._streams: dict[str, TokenStream] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._completed = self._aborted = self._failed = 0
        self._broken: str | None = None
        self._embedding: set[Future[list[float]]] = set()
        loaded: Future[EngineCore] = Future()
        self._thread = threading.Thread(target=self._work, args=(build, threads, loaded), name="engine", daemon=True)
        self._thread.start()
        self._core = loaded.result()
        self.spec = self._core.runner.model.spec
        self.tokenizer = self._core.tokenizer
        self.generation_defaults = dict(self._core.runner.model.details.generation)
        """Sampling parameters that the model's makers recommend, by the names of :class:`SamplingParams`."""

    @classmethod
    def load(
        cls,
        model: str | Path | ModelSpec,
        device: str = "cpu",
        dtype: str | None = None,
        options: EngineOptions | None = None,
        *,
        random_weights: bool = False,
        compiled: bool = False,
        threads: int | None = None,
    ) -> TorchEngine:
        """An engine for ``model``; blocks until it is there and raises as :func:`load_core` does.

        ``threads`` is how many torch may compute with, in this process as a whole.
        """
        start_s = time.monotonic()
        clock_s = partial(_since, start_s)
        build = partial(
            load_core, model, device, dtype, options, random_weights=random_weights, compiled=compiled, clock_s=clock_s
        )
        return cls(build, threads)

    @property
    def max_model_len(self) -> int:
        return self._core.scheduler.limits.max_model_len

    @property
    def core(self) -> EngineCore:
        """What the engine's thread works on; look, and leave it alone while it runs."""
        return self._core

    @property
    def ledger(self) -> list[StepRecord] | None:
        """A record of every step, if a list was set here before the engine started."""
        return self._core.ledger

    @ledger.setter
    def ledger(self, ledger: list[StepRecord] | None) -> None:
        self._core.ledger = ledger

    def describe(self) -> dict[str, object]:
        """What runs where: the labels of the real engine."""
        model, limits = self._core.runner.model, self._core.scheduler.limits
        return {
            "engine": "torch",
            "model": self.spec.name,
            "device": str(model.device),
            "dtype": str(model.dtype).removeprefix("torch."),
            "torch": torch.__version__,
            "policy": _policy_name(self._core.scheduler),
            "kv_blocks": limits.num_blocks,
            "block_size": limits.block_size,
            "max_num_seqs": limits.max_num_seqs,
            "max_num_batched_tokens": limits.max_num_batched_tokens,
            "max_model_len": limits.max_model_len,
        }

    async def start(self) -> None:
        """Begin to serve."""
        self._loop = asyncio.get_running_loop()

    async def stop(self) -> None:
        """End after the step that runs, and every open stream with reason "abort"."""
        self._inbox.put(None)
        await asyncio.to_thread(self._thread.join)
        self._end_all("abort", "the engine has stopped")

    def submit(self, request: GenerationRequest) -> TokenStream:
        """Queue a sequence now; see :class:`simserve.engines.base.Engine`."""
        if self._broken is not None:
            raise EngineError(self._broken)
        if request.request_id in self._streams:
            raise RequestError(f"request id {request.request_id} is in use; give each request its own")
        limit = request.max_tokens if request.output_tokens is None else min(request.max_tokens, request.output_tokens)
        sequence = TorchSequence(
            request.request_id, request.prompt_token_ids, limit, request.sampling, priority=request.priority
        )
        self._core.check(sequence)
        stream = TokenStream(on_close=partial(self._abort, request.request_id))
        self._streams[request.request_id] = stream
        self._inbox.put(partial(_add, sequence=sequence))
        return stream

    async def embed(self, prompts: Sequence[Sequence[int]], pooling: str = "last") -> list[list[float]]:
        """The direction of each prompt's hidden states; see :meth:`ModelRunner.embed`.

        Raises :class:`RequestError` for a prompt that is empty, too long, or not of this vocabulary.
        """
        if self._broken is not None:
            raise EngineError(self._broken)
        for token_ids in prompts:
            self._core.check_prompt(token_ids)
        waiting = []
        for token_ids in prompts:
            done: Future[list[float]] = Future()
            self._inbox.put(partial(_embed, token_ids=token_ids, pooling=pooling, done=done))
            self._embedding.add(done)
            done.add_done_callback(self._embedding.discard)
            waiting.append(asyncio.wrap_future(done))
        return list(await asyncio.gather(*waiting))

    def status(self) -> EngineStatus:
        """See :class:`simserve.engines.base.EngineStatus`."""
        core = self._core
        scheduler, blocks, runner = core.scheduler, core.scheduler.blocks, core.runner
        return EngineStatus(
            clock_s=core.clock_s(),
            waiting_requests=len(scheduler.waiting) + self._inbox.qsize(),
            running_requests=len(scheduler.running),
            completed_requests=self._completed,
            aborted_requests=self._aborted,
            steps=scheduler.steps,
            inflight_batches=int(core.has_work),
            kv_blocks_total=blocks.usable_blocks,
            kv_blocks_used=blocks.used_blocks,
            kv_block_bytes=runner.pages.page_bytes * len(runner.pages.layers),
            extra={"preemptions": core.preemptions, "failed_requests": self._failed},
        )

    # In the engine's thread.

    def _work(self, build: Callable[[], EngineCore], threads: int | None, loaded: Future[EngineCore]) -> None:
        try:
            if threads is not None:
                torch.set_num_threads(threads)
            core = build()
        except BaseException as error:
            loaded.set_exception(error)
            return
        loaded.set_result(core)
        try:
            self._serve(core)
        except Exception as error:  # a bug
            self._tell(partial(self._end_all, "error", f"the engine has failed and must be restarted ({error!r})"))

    def _serve(self, core: EngineCore) -> None:
        while True:
            try:
                note = self._inbox.get(block=not core.has_work)
            except queue.Empty:
                outputs = core.step()
                if outputs:
                    self._tell(partial(self._deliver, outputs))
                continue
            if note is None:
                return
            note(core)

    def _tell(self, what: Callable[[], None]) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
                self._loop.call_soon_threadsafe(what)

    # On the event loop.

    def _deliver(self, outputs: list[Output]) -> None:
        """Leave a step's tokens in their streams; those that were closed meanwhile have none."""
        for output in outputs:
            sequence = output.sequence
            request_id = str(sequence.request_id)
            stream = self._streams.get(request_id)
            if stream is None:
                continue
            if output.token_id is not None:
                logprobs = () if output.logprob is None else (output.logprob,)
                stream.push(output.time_s, (output.token_id,), output.text, logprobs)
            if output.finish_reason is not None:
                del self._streams[request_id]
                self._completed += output.error is None
                self._failed += output.error is not None
                stream.finish(
                    output.finish_reason,
                    output.time_s,
                    _timing(sequence, output.time_s),
                    stop_reason=output.stop_reason,
                    error=output.error,
                )

    def _abort(self, request_id: str) -> None:
        if self._streams.pop(request_id, None) is not None:
            self._aborted += 1
            self._inbox.put(partial(EngineCore.abort, request_id=request_id))

    def _end_all(self, reason: str, sentence: str) -> None:
        """The thread is gone: nobody may be left waiting for it, and nobody may come."""
        self._broken = sentence
        for stream in self._streams.values():
            stream.finish(reason, self._core.clock_s(), error=sentence if reason == "error" else None)
        self._streams.clear()
        for embedding in list(self._embedding):
            if not embedding.done():
                embedding.set_exception(EngineError(sentence))


def _policy_name(scheduler: Scheduler) -> str:
    names = [name for name, kind in POLICIES.items() if type(scheduler) is kind]
    return names[0] if names else type(scheduler).__name__


def _since(start_s: float) -> float:
    return time.monotonic() - start_s


def _add(core: EngineCore, sequence: TorchSequence) -> None:
    core.add(sequence)


def _embed(core: EngineCore, token_ids: Sequence[int], pooling: str, done: Future[list[float]]) -> None:
    if not done.set_running_or_notify_cancel():
        return
    try:
        done.set_result(core.runner.embed(token_ids, pooling))
    except Exception as error:
        done.set_exception(error)


def _timing(sequence: TorchSequence, finish_s: float) -> RequestTiming:
    return RequestTiming(
        arrival_s=sequence.arrival_s,
        scheduled_s=sequence.scheduled_s,
        first_token_s=sequence.first_token_s,
        finish_s=finish_s,
        cached_tokens=sequence.cached_tokens,
        preemptions=sequence.preemptions,
    )
