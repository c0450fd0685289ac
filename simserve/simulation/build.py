"""Which kind of replica an engine is: chosen once, when it is built."""

from __future__ import annotations

import simpy

from simserve.latency.pipeline import PipelineTimer
from simserve.scheduling import Pipelined, Scheduler
from simserve.simulation.front_end import FrontEnd
from simserve.simulation.pipeline import BatchGaps, PipelineReplica
from simserve.simulation.replica import Replica, StepObserver
from simserve.simulation.setup import EngineSetup


def new_replica(
    setup: EngineSetup,
    env: simpy.Environment,
    scheduler: Scheduler,
    observer: StepObserver,
    *,
    list_decodes: bool = False,
    may_halt: bool = False,
) -> Replica:
    """The replica of ``setup``, with a scheduler that ``setup`` has made; the others are as for :class:`Replica`."""
    if isinstance(setup.timer, PipelineTimer):
        assert isinstance(scheduler, Pipelined)
        return PipelineReplica(env, scheduler, setup.timer, observer, list_decodes=list_decodes)
    return Replica(
        env,
        scheduler,
        setup.timer,
        observer,
        async_scheduling=setup.async_scheduling,
        list_decodes=list_decodes,
        may_halt=may_halt,
    )


def new_front_end(setup: EngineSetup, env: simpy.Environment, observer: StepObserver) -> FrontEnd | None:
    """The front end of an engine, to be connected to its replica; None if ``setup`` has none."""
    if setup.front_end is None:
        return None
    if isinstance(setup.timer, PipelineTimer):
        observer = BatchGaps(observer)
    return FrontEnd(env, setup.front_end, setup.options.api_server_count or 1, observer)
