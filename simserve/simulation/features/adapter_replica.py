"""A replica with LoRA adapters: a step waits until those that it needs are on the device, and takes longer by them."""

from __future__ import annotations

from simserve.latency.adapters import AdapterStepTimer
from simserve.scheduling import StepPlan
from simserve.scheduling.adapters import NO_ADAPTERS, AdapterVllmV1
from simserve.simulation.features.adapters import AdapterSetup, AdapterStore
from simserve.simulation.features.counts import Counts
from simserve.simulation.replica import Replica


class AdapterReplica(Replica):
    """Needs :meth:`connect` before the first request comes."""

    def connect(self, scheduler: AdapterVllmV1, timer: AdapterStepTimer, setup: AdapterSetup, counts: Counts) -> None:
        """``scheduler`` and ``timer`` are the replica's own; loads are added to ``counts``."""
        self._batches = scheduler.batches
        self._adapter_timer = timer
        self._counts = counts
        self.adapters = AdapterStore(setup)

    def _begin(self, plan: StepPlan, now: float) -> None:
        batch = self._batches.pop(plan.index, NO_ADAPTERS)
        wait_s = self._load(plan, batch.adapters) if batch.adapters else 0.0
        self._adapter_timer.expect(batch.tokens, len(batch.adapters), wait_s)
        super()._begin(plan, now)

    def _load(self, plan: StepPlan, adapters: tuple[int, ...]) -> float:
        read, copied = self.adapters.use(adapters)
        counted = self._counts.totals
        for chunk in plan.chunks:
            request = chunk.request
            if request.adapter and request.scheduled_s != request.scheduled_s:  # NaN: its first step
                counted["lora_requests"] += 1
                self._counts.note("adapter", request.request_id, request.adapter)
                counted["lora_device_hits"] += request.adapter not in copied
        if not copied:
            return 0.0
        wait_s = self.adapters.seconds(len(read), len(copied))
        counted["lora_loads"] += len(copied)
        counted["lora_disk_loads"] += len(read)
        self._counts.seconds["lora_load_s"] += wait_s
        return wait_s
