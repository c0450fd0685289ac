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
        self.loads = 0
        """Adapters that came to the device so far."""
        self.load_s = 0.0
        self._loaded_s = 0.0
        """When the last of those is there that somebody wanted loaded beside any step."""

    def load(self, adapter: int, now_s: float | None) -> None:
        """Bring ``adapter`` to the device, as vLLM's ``add_lora``: the next step waits until it is there.

        None is before anything happens, when nobody waits.
        """
        seconds, _ = self._bring((adapter,))
        if now_s is not None:
            self._loaded_s = max(self._loaded_s, now_s) + seconds

    def _begin(self, plan: StepPlan, now: float) -> None:
        batch = self._batches.pop(plan.index, NO_ADAPTERS)
        wait_s = max(self._loaded_s - now, 0.0)
        if batch.adapters:
            seconds, copied = self._bring(batch.adapters)
            wait_s += seconds
            self._note_first_steps(plan, copied)
        self._adapter_timer.expect(batch.tokens, len(batch.adapters), wait_s)
        super()._begin(plan, now)

    def _bring(self, adapters: tuple[int, ...]) -> tuple[float, list[int]]:
        """Have them on the device: how long that takes, and which were not there."""
        read, copied = self.adapters.use(adapters)
        if not copied:
            return 0.0, copied
        seconds = self.adapters.seconds(len(read), len(copied))
        self.loads += len(copied)
        self.load_s += seconds
        counts = self._counts
        counts.totals["lora_loads"] += len(copied)
        counts.totals["lora_disk_loads"] += len(read)
        counts.seconds["lora_load_s"] += seconds
        return seconds, copied

    def _note_first_steps(self, plan: StepPlan, copied: list[int]) -> None:
        counts = self._counts
        for chunk in plan.chunks:
            request = chunk.request
            if request.adapter and request.scheduled_s != request.scheduled_s:  # NaN: its first step
                counts.note("adapter", request.request_id, request.adapter)
                counts.totals["lora_requests"] += 1
                counts.totals["lora_device_hits"] += request.adapter not in copied
