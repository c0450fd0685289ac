"""The server that ``facade.py`` measures: one model on one or several engines of equal batches.

    facade_server.py ENGINES BATCH TOKENS_PER_S

Prints its port, serves until "stop" comes on stdin, and prints the due times of all steps and how late tokens were
written between the last two other lines. Time is scaled so that a decode of a whole batch yields TOKENS_PER_S; "inf"
answers at once.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence

import uvloop

from simserve.config import EngineOptions
from simserve.engines import EngineStatus, GenerationRequest, SimulatedEngine
from simserve.engines.reports import Arrival, Ending, StepReport
from simserve.engines.streams import TokenStream
from simserve.hardware import load_hardware
from simserve.metrics.rolling import Punctuality
from simserve.models import load_model
from simserve.server.run import listening, settle_process
from simserve.server.simulated import simulated_over
from simserve.simulation import prepare

MODEL, HARDWARE = "meta-llama/Llama-3.1-8B-Instruct", "A100"
CONTEXT_TOKENS = 480
"""Of a sequence on average while it is measured."""


class Spread:
    """Several engines that take requests in turn; the first stands for all where only one can answer."""

    def __init__(self, engines: Sequence[SimulatedEngine]) -> None:
        self._engines = engines
        self._taken = 0
        self.max_model_len = engines[0].max_model_len
        self.describe = engines[0].describe
        self.clock, self.punctuality = engines[0].clock, engines[0].punctuality
        self.pause, self.resume = engines[0].pause, engines[0].resume
        self.set_time_scale = engines[0].set_time_scale

    async def start(self) -> None:
        for engine in self._engines:
            await engine.start()

    async def stop(self) -> None:
        for engine in self._engines:
            await engine.stop()

    def submit(self, request: GenerationRequest) -> TokenStream:
        self._taken += 1
        return self._engines[(self._taken - 1) % len(self._engines)].submit(request)

    def status(self) -> EngineStatus:
        return self._engines[0].status()


class DueTimes:
    """Notes when each step ended, in simulated time, and when that was due by the wall's clock."""

    def __init__(self, engine: SimulatedEngine) -> None:
        self.ends_s: list[float] = []
        self.due_s: list[float] = []
        self._clock = engine.clock
        engine.observe(self)

    def arrived(self, arrival: Arrival) -> None: ...

    def step_done(self, step: StepReport) -> None:
        self.ends_s.append(step.end_s)
        self.due_s.append(self._clock.wall_s(step.end_s))

    def ended(self, ending: Ending) -> None: ...


class WriteLateness:
    """How late and how early tokens were written, of all engines together, between one line on stdin and the next."""

    def __init__(self, engines: Sequence[SimulatedEngine]) -> None:
        self._engines = engines
        self._since_last = self.between = Punctuality()

    def look(self) -> None:
        """Begin anew; what has been counted until now is what was ``between``."""
        self.between, self._since_last = self._since_last, Punctuality()
        for engine in self._engines:
            engine.count_punctuality_in(self._since_last)


async def serve(count: int, batch: int, tokens_per_s: float) -> None:
    options = EngineOptions(max_num_seqs=1024, num_gpu_blocks=200_000, max_num_batched_tokens=8192)
    model = load_model(MODEL)
    setup = prepare(model, load_hardware(HARDWARE), options)
    step_s = setup.timer.step_s(batch, batch * CONTEXT_TOKENS, [], batch)
    engines = [SimulatedEngine(setup, step_s * tokens_per_s) for _ in range(count)]
    due, late = [DueTimes(engine) for engine in engines], WriteLateness(engines)
    loop = asyncio.get_running_loop()
    async with listening(simulated_over(model, Spread(engines), [model.name]), "127.0.0.1", 0) as url:
        settle_process()
        print(url.rsplit(":", 1)[1], flush=True)
        while await loop.run_in_executor(None, sys.stdin.readline) != "stop\n":
            late.look()
    write_late_s = [late.between.late.percentile(percent) for percent in (50, 99)]
    write_early_s = late.between.early.percentile(99) or 0.0
    steps = {str(at): [one.ends_s, one.due_s] for at, one in enumerate(due)}
    print(json.dumps({"steps": steps, "write_late_s": write_late_s, "write_early_s": write_early_s}))


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
