"""A replica whose prefix cache goes on in the host's memory: copies begin and end beside its steps."""

from __future__ import annotations

from functools import partial

import simpy

from simserve.scheduling import StepPlan
from simserve.scheduling.fetching import Fetch, FetchingVllmV1
from simserve.scheduling.fetching_kv_cache import Unit
from simserve.simulation.arrivals import Moment
from simserve.simulation.features.counts import Counts
from simserve.simulation.features.kv_tiers import KVTiers, TierSizes
from simserve.simulation.replica import Replica, Run


class FetchingReplica(Replica):
    """Needs :meth:`connect` before the first request comes.

    A fetch begins with the step that follows the one in flight, as vLLM's workers start it with a step; the request is
    seen again as if it came when everything is there. Units are copied to the host when the step ends that computed
    them.
    """

    def connect(self, scheduler: FetchingVllmV1, sizes: TierSizes, counts: Counts) -> None:
        """Put the tiers below ``scheduler``, which is the replica's own."""
        self._fetcher = scheduler
        self._counts = counts
        self._block_size = scheduler.limits.block_size
        self.tiers = KVTiers(sizes)
        scheduler.tiers = self.tiers
        self._computed: list[Unit] = []
        """What the run in flight computes."""

    def _schedule(self) -> StepPlan:
        self.tiers.now_s = self._env.now
        plan = super()._schedule()
        if self._fetcher.begun:
            begun, self._fetcher.begun = self._fetcher.begun, []
            for fetch in begun:
                self._begin_fetch(fetch)
        return plan

    def _begin_fetch(self, fetch: Fetch) -> None:
        begin_s = self._env.now if self._run is None else self._run.end_s
        units = [(run.key, run.blocks) for run in fetch.coming]
        done_s, host_blocks, disk_blocks = self.tiers.fetch(units, begin_s)
        for name, blocks in (("kv_host_tokens", host_blocks), ("kv_disk_tokens", disk_blocks)):
            if blocks:
                self._counts.add(name, fetch.request.request_id, blocks * self._block_size)
        self._counts.totals["kv_fetches"] += 1
        Moment(self._env, done_s, partial(self._fetched, fetch))

    def _fetched(self, fetch: Fetch, _: simpy.Event) -> None:
        run = self._run
        if run is not None:
            self._plan_ahead_if_due(run)
        if not self._fetcher.fetched(fetch):
            return
        if run is not None:
            if run.steps > 1 and not self._scheduler.admission_is_blocked:
                self._shorten(run)
        elif not self._wake.is_set:
            self._wake.set(self._env.now)

    def _begin(self, plan: StepPlan, now: float) -> None:
        self._computed, self._fetcher.cache.new_units = self._fetcher.cache.new_units, []
        super()._begin(plan, now)

    def _complete(self, run: Run) -> None:
        super()._complete(run)
        if self._computed:
            blocks = self.tiers.store(self._computed, run.end_s)
            self._counts.totals["kv_stored_tokens"] += blocks * self._block_size
            self._computed = []
