"""A prefix cache that can be filled from elsewhere: blocks are set aside for what is on its way, then found by all.

The decisions are those of :class:`~simserve.scheduling.kv_cache.KVCache`; beside them, somebody may hold runs of
blocks for a request that does not run yet.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from simserve.scheduling.kv_cache import BlockRun, KVCache, PrefixHit
from simserve.scheduling.request import Request

Unit = tuple[Hashable, int]
"""What the cache knows by one identity, and how many blocks it takes."""


class FetchingKVCache(KVCache):
    """``new_units`` are those that have become findable since somebody last took them from the list."""

    def __init__(self, num_blocks: int, block_size: int, prefix_caching: bool) -> None:
        super().__init__(num_blocks, block_size, prefix_caching)
        self.new_units: list[Unit] = []

    def register_units(self, request: Request, unhashed_tokens: int = 0) -> None:
        """See :meth:`KVCache.register_units`."""
        known = len(request.unit_runs)
        super().register_units(request, unhashed_tokens)
        self.new_units += [(run.key, run.blocks) for run in request.unit_runs[known:]]

    def not_found(self, request: Request, hit: PrefixHit) -> list[Unit]:
        """The units of a waiting ``request`` behind those of ``hit``, as far as it may find any; none if it has blocks
        of its own here, from before a preemption."""
        if hit.own_blocks:
            return []
        room = (request.known_tokens - 1) // self.block_size - hit.blocks
        units = []
        for key, blocks in request.unit_blocks(self.block_size, start=len(hit.runs)):
            if blocks > room:
                break
            units.append((key, blocks))
            room -= blocks
        return units

    def set_aside(self, hit: PrefixHit, units: Sequence[Unit], reserve_tokens: int, keep_free: int) -> list[BlockRun]:
        """Hold the runs of ``hit`` and new ones for ``units``, which nobody finds yet; [] if there is no room.

        ``reserve_tokens`` must fit with ``keep_free`` blocks to spare, as in :meth:`KVCache.admit`.
        """
        if self.blocks_for(reserve_tokens) - hit.held_blocks + keep_free > self.free_blocks:
            return []
        for run in hit.runs:
            if run.holders == 0:
                self._unqueue(run)
            run.holders += 1
        self.take(sum(blocks for _, blocks in units))
        return [*hit.runs, *(BlockRun(blocks, key, holders=1) for key, blocks in units)]

    def publish(self, runs: Sequence[BlockRun]) -> None:
        """What was on its way to these runs has come: it can be found."""
        for run in runs:
            self._cached.setdefault(run.key, []).append(run)
        self.version += 1

    def let_go(self, runs: Sequence[BlockRun], on_their_way: Sequence[BlockRun] = ()) -> None:
        """Hold ``runs`` no longer; what was ``on_their_way`` to some of them is not awaited."""
        coming = set(on_their_way)
        for run in reversed(runs):
            run.holders -= 1
            if run in coming:
                self.free_blocks += run.blocks
                self._enqueue_nameless(run.blocks)
            elif run.holders == 0:
                self.free_blocks += run.blocks
                self._enqueue(run)
        self.version += 1
