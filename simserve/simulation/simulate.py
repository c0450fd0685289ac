"""A whole run as a batch job: workload or source in, records out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import simpy

from simserve.config import EngineOptions
from simserve.errors import RequestError
from simserve.hardware import OWN_PRICE, HardwareProfile
from simserve.latency.pipeline import PipelineTimer
from simserve.metrics.records import REJECTED, Records, RunDescription, RunTotals
from simserve.models import ModelSpec
from simserve.scheduling import Request
from simserve.simulation.features.build import figures, new_replica
from simserve.simulation.features.counts import Columns, Counts
from simserve.simulation.features.speculative_recorder import SpeculativeRecorder
from simserve.simulation.front_end import FrontEnd
from simserve.simulation.pipeline import BatchGaps
from simserve.simulation.recorder import Recorder
from simserve.simulation.replica import Replica, Run, StepObserver
from simserve.simulation.setup import EngineSetup, prepare
from simserve.simulation.sources import OpenLoop, Source, Submit, check_adapters
from simserve.simulation.watching.watcher import ReplicaWatch, Watcher
from simserve.workload.workload import Workload

Progress = Callable[[int, int, float], None]
"""Called now and then with (requests done, requests in all, simulated seconds)."""


@dataclass(frozen=True)
class SimulationResult:
    """What a run yields: everything shown is computed from these.

    ``figures`` and ``columns`` are those of features that not every engine has, by name; a column has an entry for
    each request.
    """

    records: Records
    totals: RunTotals
    description: RunDescription
    figures: Mapping[str, int | float] = field(default_factory=dict)
    columns: Columns = field(default_factory=dict)


def simulate(
    workload: Workload | Source,
    model: ModelSpec,
    hardware: HardwareProfile,
    options: EngineOptions,
    on_progress: Progress | None = None,
    edge: int = 0,
    watchers: Sequence[Watcher] = (),
) -> SimulationResult:
    """Serve ``workload`` on one replica in simulated time. Same input, same result, to the bit.

    A :class:`~simserve.simulation.sources.Source` sends requests that depend on the answers to others. A request whose
    prompt cannot fit is recorded as rejected and the others go on. Raises :class:`SimServeError` subclasses for options
    that cannot be honoured (see :func:`simserve.simulation.setup.prepare`, which also tells what an ``edge`` is).
    ``watchers`` see every run of steps.
    """
    setup = prepare(model, hardware, options, edge)
    env = simpy.Environment()
    scheduler = setup.new_scheduler()
    source = OpenLoop(workload) if isinstance(workload, Workload) else workload
    check_adapters(source, setup.adapters is not None)
    made = Recorder if setup.speculation is None else SpeculativeRecorder
    recorder = made(scheduler, setup.timer, _reporter(on_progress, len(source)))
    observer: StepObserver = recorder if isinstance(source, OpenLoop) else _Answers(recorder, source)
    if watchers:
        observer = ReplicaWatch(observer, scheduler, watchers)
    front_end = new_front_end(setup, env, observer)
    counts = Counts()
    replica = new_replica(setup, env, scheduler, front_end or observer, counts)
    admit = _submitter(replica, recorder, source)
    if front_end is not None:
        front_end.connect(replica, admit)
    source.start(env, admit if front_end is None else front_end.submit)
    env.run()
    if on_progress:
        on_progress(recorder.done_requests, len(source), env.now)
    records = recorder.records()
    totals = recorder.totals(records)
    if front_end is not None:
        totals = replace(totals, front_end_busy_s=front_end.busy_s)
    description = describe(setup, source.name)
    return SimulationResult(records, totals, description, figures([setup], counts), counts.columns(len(records)))


def new_front_end(setup: EngineSetup, env: simpy.Environment, observer: StepObserver) -> FrontEnd | None:
    """The front end of an engine, to be connected to its replica; None if ``setup`` has none."""
    if setup.front_end is None:
        return None
    if isinstance(setup.timer, PipelineTimer):
        observer = BatchGaps(observer)
    return FrontEnd(env, setup.front_end, setup.options.api_server_count or 1, observer)


def describe(setup: EngineSetup, workload_name: str) -> RunDescription:
    """The labels that every output of a run carries."""
    hardware, limits, devices = setup.hardware, setup.limits, setup.devices * setup.ranks.count
    formats = setup.formats
    peaks = {hardware.peak_flops_for(dtype) for dtype in (formats.dtype, formats.weights.computed_in)}
    return RunDescription(
        model=setup.model.name,
        hardware=f"{devices} x {hardware.name}" if devices > 1 else hardware.name,
        hardware_profile=hardware.name,
        calibrated=hardware.calibrated,
        uncertainty=setup.uncertainty,
        policy=setup.policy_name,
        workload=workload_name,
        kv_blocks=limits.num_blocks,
        block_size=limits.block_size,
        tensor_parallel_size=setup.options.tensor_parallel_size,
        pipeline_parallel_size=setup.options.pipeline_parallel_size,
        data_parallel_size=setup.ranks.count,
        expert_parallel=setup.ranks.expert_parallel,
        max_num_seqs=limits.max_num_seqs,
        max_num_batched_tokens=limits.max_num_batched_tokens,
        max_model_len=limits.max_model_len,
        dtype=formats.dtype,
        peak_flops=max(peaks),
        peak_bandwidth_bytes_per_s=hardware.bandwidth_bytes_per_s,
        quantization=formats.quantization.method if formats.quantization else None,
        kv_cache_dtype=formats.kv_dtype,
        formats=formats.label,
        front_end=setup.options.front_end,
        api_server_count=0 if setup.front_end is None else setup.options.api_server_count or 1,
        devices=devices,
        **_power_and_price(hardware),
    )


def _power_and_price(hardware: HardwareProfile) -> dict[str, Any]:
    power, price = hardware.power, hardware.price
    return {
        "peak_w": power.peak_w if power else None,
        "idle_w": power.idle_w if power else None,
        "usd_per_hour": price.usd_per_hour if price else None,
        "price_source": price and (price.source if price.source == OWN_PRICE else f"{price.source}, {price.date}"),
    }


class _Answers:
    """Tells a source that waits for answers what has finished, after the recorder."""

    def __init__(self, recorder: Recorder, source: Source) -> None:
        self._recorder = recorder
        self._source = source

    def run_done(self, run: Run, finished: list[Request]) -> None:
        self._recorder.run_done(run, finished)
        if finished:
            self._source.finished(finished)


def _submitter(replica: Replica, recorder: Recorder, source: Source) -> Submit:
    """Hands requests to ``replica``; those it cannot serve are on record, and finished for their source."""

    def submit(request: Request) -> None:
        try:
            replica.submit(request)
        except RequestError:
            recorder.finish(request, REJECTED)
            source.finished((request,))

    return submit


def _reporter(on_progress: Progress | None, total: int) -> Callable[[int, float], None] | None:
    if on_progress is None:
        return None
    return lambda done, clock_s: on_progress(done, total, clock_s)
