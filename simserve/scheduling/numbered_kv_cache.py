"""KV blocks with numbers, for an engine that has to put something into them.

The decisions are those of :class:`~simserve.scheduling.kv_cache.KVCache`, which only counts; here every run of blocks
also carries the numbers of its pages. Blocks are handed out by a count for all requests of a step together; who gets
which page is settled when somebody asks for a request's table, and does not matter, for all of them are new to all.
"""

from __future__ import annotations

from simserve.scheduling.kv_cache import BlockRun, KVCache, PrefixHit
from simserve.scheduling.request import Request


class NumberedKVCache(KVCache):
    """Pages are numbered from 1; page 0 is the null block, which is never handed out."""

    def __init__(self, num_blocks: int, block_size: int, prefix_caching: bool) -> None:
        super().__init__(num_blocks, block_size, prefix_caching)
        self._newest.pages = list(range(self.usable_blocks, 0, -1))  # handed out from the end: 1 is the first
        self._handed_out: list[int] = []
        self._tables: dict[Request, list[int]] = {}

    def table(self, request: Request, tokens: int) -> list[int]:
        """Pages of ``request`` in order, enough for ``tokens`` tokens, which the last plan has given it.

        The list lives on: it grows as the request does. Ask in every step for everybody in the plan.
        """
        table = self._tables[request]
        while len(table) * self.block_size < tokens:
            table.append(self._handed_out.pop())
        return table

    @property
    def unclaimed_pages(self) -> int:
        """Pages handed out that no table has yet: 0 once everybody in a plan was asked for."""
        return len(self._handed_out)

    def admit(self, request: Request, tokens: int, reserve_tokens: int, keep_free: int, hit: PrefixHit) -> bool:
        """See :meth:`KVCache.admit`; the request's table begins with what it found in the cache."""
        found = [page for run in hit.runs for page in run.pages]
        if request.left_behind is not None:
            found += request.left_behind.pages[: hit.own_blocks]
        if not super().admit(request, tokens, reserve_tokens, keep_free, hit):
            return False
        self._tables[request] = found
        self.table(request, hit.blocks * self.block_size + tokens)
        return True

    def take(self, blocks: int) -> None:
        """See :meth:`KVCache.take`: runs are used up oldest first, each from its end."""
        left = blocks
        for run in self._queue:
            part = min(run.blocks, left)
            if part == 0:
                break
            self._handed_out += run.pages[-part:]
            del run.pages[-part:]
            left -= part
        super().take(blocks)

    def register_units(self, request: Request, unhashed_tokens: int = 0) -> None:
        """See :meth:`KVCache.register_units`."""
        known = len(request.unit_runs)
        super().register_units(request, unhashed_tokens)
        if len(request.unit_runs) == known:
            return
        table = self.table(request, request.computed_tokens)
        at = sum(run.blocks for run in request.unit_runs[:known])
        for run in request.unit_runs[known:]:
            run.pages = table[at : at + run.blocks]
            at += run.blocks

    def free(self, request: Request, *, may_return: bool = False, unhashed_tokens: int = 0) -> None:
        """See :meth:`KVCache.free`; the table is gone."""
        if request in self._tables:  # else it never ran, or waits after a preemption
            self.table(request, max(request.computed_tokens, request.allocated_tokens))
        super().free(request, may_return=may_return, unhashed_tokens=unhashed_tokens)
        self._tables.pop(request, None)

    def _give_back(self, request: Request, own: int, findable: int) -> BlockRun:
        run = super()._give_back(request, own, findable)
        pages = self._tables[request][-own:]
        run.pages = pages if run.blocks == own else run.pages + pages
        return run

    def _reclaim(self, run: BlockRun, blocks: int) -> None:
        del run.pages[:blocks]
        super()._reclaim(run, blocks)
