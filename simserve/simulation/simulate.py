"""A whole run as a batch job: workload in, records out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import simpy

from simserve.config import EngineOptions
from simserve.errors import RequestError
from simserve.hardware import HardwareProfile
from simserve.metrics.records import REJECTED, Records, RunDescription, RunTotals
from simserve.models import ModelSpec
from simserve.scheduling import Request
from simserve.simulation.arrivals import Moment
from simserve.simulation.recorder import Recorder
from simserve.simulation.replica import Replica
from simserve.simulation.setup import EngineSetup, prepare
from simserve.workload.workload import Workload

Progress = Callable[[int, int, float], None]
"""Called now and then with (requests done, requests in all, simulated seconds)."""

ROWS_PER_BATCH = 4096
"""Rows turned into Python numbers at a time: fast, and a million requests need no million objects at once."""


@dataclass(frozen=True)
class SimulationResult:
    """What a run yields: everything shown is computed from these."""

    records: Records
    totals: RunTotals
    description: RunDescription


def simulate(
    workload: Workload,
    model: ModelSpec,
    hardware: HardwareProfile,
    options: EngineOptions,
    on_progress: Progress | None = None,
) -> SimulationResult:
    """Serve ``workload`` on one replica in simulated time. Same input, same result, to the bit.

    A request whose prompt cannot fit is recorded as rejected and the others go on. Raises :class:`SimServeError`
    subclasses for options that cannot be honoured (see :func:`simserve.simulation.setup.prepare`).
    """
    setup = prepare(model, hardware, options)
    env = simpy.Environment()
    scheduler = setup.new_scheduler()
    recorder = Recorder(scheduler, setup.timer, _reporter(on_progress, len(workload)))
    replica = Replica(env, scheduler, setup.timer, recorder, async_scheduling=options.async_scheduling)
    env.process(_arrive(env, workload, replica, recorder))
    env.run()
    if on_progress:
        on_progress(recorder.done_requests, len(workload), env.now)
    records = recorder.records()
    return SimulationResult(records, recorder.totals(records), describe(setup, workload.name))


def describe(setup: EngineSetup, workload_name: str) -> RunDescription:
    """The labels that every output of a run carries."""
    hardware, limits, devices = setup.hardware, setup.limits, setup.options.tensor_parallel_size
    return RunDescription(
        model=setup.model.name,
        hardware=f"{devices} x {hardware.name}" if devices > 1 else hardware.name,
        hardware_profile=hardware.name,
        calibrated=hardware.calibrated,
        uncertainty=hardware.uncertainty,
        policy=setup.options.policy,
        workload=workload_name,
        kv_blocks=limits.num_blocks,
        block_size=limits.block_size,
        tensor_parallel_size=devices,
        max_num_seqs=limits.max_num_seqs,
        max_num_batched_tokens=limits.max_num_batched_tokens,
        max_model_len=limits.max_model_len,
        dtype=setup.dtype,
        peak_flops=hardware.peak_flops_for(setup.dtype),
        peak_bandwidth_bytes_per_s=hardware.bandwidth_bytes_per_s,
    )


def _arrive(
    env: simpy.Environment, workload: Workload, replica: Replica, recorder: Recorder
) -> simpy.events.ProcessGenerator:
    for request in _requests(workload):
        if request.arrival_s > env.now:
            yield Moment(env, request.arrival_s)
        try:
            replica.submit(request)
        except RequestError:
            recorder.finish(request, REJECTED)


def _reporter(on_progress: Progress | None, total: int) -> Callable[[int, float], None] | None:
    if on_progress is None:
        return None
    return lambda done, clock_s: on_progress(done, total, clock_s)


def _requests(workload: Workload) -> Iterator[Request]:
    """Rows as requests, made as they are needed."""
    prefix = workload.prefix
    for start in range(0, len(workload), ROWS_PER_BATCH):
        rows = slice(start, start + ROWS_PER_BATCH)
        columns = (workload.arrival_s[rows], workload.input_tokens[rows], workload.output_tokens[rows])
        for row, (arrival_s, inputs, outputs) in enumerate(zip(*(c.tolist() for c in columns), strict=True), start):
            yield Request(
                row,
                inputs,
                outputs,
                arrival_s=arrival_s,
                units=prefix.of(row) if prefix else (),
                unit_tokens=prefix.unit_tokens if prefix else 0,
            )
