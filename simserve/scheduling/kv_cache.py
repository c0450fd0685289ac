"""KV blocks and the prefix cache: vLLM V1's KV cache manager, counted in runs of blocks instead of one by one.

Blocks that are taken, held, freed and forgotten together are one :class:`BlockRun`; a queue of such runs is the LRU
list of free blocks. A *unit* is what the cache knows by one identity: a block of a hashed prompt, or the several blocks
that one hash id of a trace stands for. It is found whole or not at all. Freed blocks stay findable until the queue
hands them out again; a request returns its blocks last first, so that prompts are forgotten from their ends.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from simserve.scheduling.request import NONE, Request


class BlockRun:
    """``blocks`` KV blocks with one fate. ``key`` is the unit they hold, None if nobody could ask for them.

    ``owner_blocks`` is for what a preempted request left behind: how many of its blocks, counted from the first, are
    full; reusing takes the last ones first, so what is left of the run is still the beginning. ``pages`` are the
    blocks' numbers, where they have any.
    """

    __slots__ = ("blocks", "holders", "key", "owner_blocks", "pages")

    pages: list[int]

    def __init__(self, blocks: int, key: Hashable = None, holders: int = 0, owner_blocks: int = 0) -> None:
        self.blocks = blocks
        self.key = key
        self.holders = holders
        self.owner_blocks = owner_blocks


class KVCache:
    """All KV blocks of one engine.

    ``num_blocks`` counts vLLM's null block, which is never handed out: ``usable_blocks`` is one less.
    A running request holds ceil(computed tokens / block size) blocks, or those of its ``allocated_tokens`` if these are
    more: first its units, then blocks of its own.
    """

    __slots__ = (
        "_cached", "_newest", "_queue", "block_size", "free_blocks", "prefix_caching", "usable_blocks", "version",
    )  # fmt: skip

    def __init__(self, num_blocks: int, block_size: int, prefix_caching: bool) -> None:
        self.block_size = block_size
        self.prefix_caching = prefix_caching
        self.usable_blocks = num_blocks - 1
        self.free_blocks = self.usable_blocks
        self.version = 0
        """Changes whenever blocks are freed or units become findable: when a request that did not fit may fit now."""
        self._queue: OrderedDict[BlockRun, None] = OrderedDict()
        self._newest = BlockRun(self.usable_blocks)
        self._queue[self._newest] = None
        self._cached: dict[Hashable, list[BlockRun]] = {}

    @property
    def used_blocks(self) -> int:
        return self.usable_blocks - self.free_blocks

    def blocks_for(self, tokens: int) -> int:
        """Blocks that hold ``tokens`` tokens."""
        return -(-tokens // self.block_size)

    def find(self, request: Request) -> PrefixHit:
        """What a waiting ``request`` finds of itself."""
        if not request.units and request.left_behind is None:
            return NOTHING_FOUND
        runs = self._find_prefix(request)
        return PrefixHit(runs, self._left_behind(request, sum(run.blocks for run in runs)))

    def _find_prefix(self, request: Request) -> list[BlockRun]:
        """The longest run of cached units that ``request`` begins with, short of its last known token.

        One token is always left to compute, because something must be sampled from.
        """
        if not self.prefix_caching or not request.units:
            return []
        found: list[BlockRun] = []
        room = (request.known_tokens - 1) // self.block_size
        for key, blocks in request.unit_blocks(self.block_size):
            twins = self._cached.get(key)
            if twins is None or blocks > room:
                break
            found.append(twins[0])
            room -= blocks
        return found

    def have_twins(self, runs: list[BlockRun]) -> bool:
        """Whether some of these cached units are there more than once, so that another may come to light."""
        return any(len(self._cached[run.key]) > 1 for run in runs)

    def _left_behind(self, request: Request, unit_blocks: int) -> int:
        """Blocks of its own that a preempted ``request`` finds again behind ``unit_blocks`` blocks of units."""
        run = request.left_behind
        if run is None or unit_blocks != request.total_unit_blocks(self.block_size):
            return 0
        return min(run.blocks, run.owner_blocks, (request.known_tokens - 1) // self.block_size - unit_blocks)

    def admit(self, request: Request, tokens: int, reserve_tokens: int, keep_free: int, hit: PrefixHit) -> bool:
        """Give a waiting request the blocks of ``hit`` and blocks for ``tokens`` tokens more, or nothing at all.

        ``reserve_tokens`` (>= hit + tokens) must fit with ``keep_free`` blocks to spare, though only ``tokens`` are
        allocated now.
        """
        if self.blocks_for(reserve_tokens) - hit.held_blocks + keep_free > self.free_blocks:
            return False
        if hit.runs:
            for run in hit.runs:
                if run.holders == 0:
                    self._unqueue(run)
                run.holders += 1
            request.unit_runs = hit.runs
        if request.left_behind is not None:
            self._reclaim(request.left_behind, hit.own_blocks)
            request.left_behind = None
        self.take(self.blocks_for(hit.blocks * self.block_size + tokens) - hit.blocks)
        return True

    def take(self, blocks: int) -> None:
        """Hand out the ``blocks`` least recently used free blocks (there must be so many); forget what they held."""
        self.free_blocks -= blocks
        queue = self._queue
        if len(queue) == 1:
            only = self._newest
            if only.key is None and only.blocks > blocks:
                only.blocks -= blocks
                return
        while blocks > 0:
            oldest = next(iter(queue))
            if oldest.key is not None:
                self._forget(oldest)
            if oldest.blocks > blocks:
                oldest.blocks -= blocks
                return
            blocks -= oldest.blocks
            oldest.blocks = 0
            del queue[oldest]

    def register_units(self, request: Request, unhashed_tokens: int = 0) -> None:
        """Make the units that ``request`` has computed in full findable by others."""
        if not self.prefix_caching or not request.units:
            return
        full_blocks = (request.computed_tokens - unhashed_tokens) // self.block_size
        if not request.unit_runs:
            request.unit_runs = []
        held = sum(run.blocks for run in request.unit_runs)
        for key, blocks in request.unit_blocks(self.block_size, start=len(request.unit_runs)):
            held += blocks
            if held > full_blocks:
                return
            run = BlockRun(blocks, key, holders=1)
            request.unit_runs.append(run)
            self._cached.setdefault(key, []).append(run)
            self.version += 1

    def free(self, request: Request, *, may_return: bool = False, unhashed_tokens: int = 0) -> None:
        """Take back all blocks of ``request``; ``may_return`` if it was preempted and will look for them again."""
        if len(request.unit_runs) < len(request.units):  # those of its answer, which nobody asks for before it is out
            self.register_units(request, unhashed_tokens)
        units = sum(run.blocks for run in request.unit_runs) if request.unit_runs else 0
        own = self.blocks_for(max(request.computed_tokens, request.allocated_tokens)) - units
        full = (request.computed_tokens - unhashed_tokens) // self.block_size - units
        self.version += 1
        if own > 0:
            self.free_blocks += own
            # Blocks of a unit that was not complete hold nothing that could be asked for.
            findable = may_return and self.prefix_caching and units == request.total_unit_blocks(self.block_size)
            self._give_back(request, own, full if findable else 0)
        if request.unit_runs:
            for run in reversed(request.unit_runs):
                run.holders -= 1
                if run.holders == 0:
                    self.free_blocks += run.blocks
                    self._enqueue(run)
            request.unit_runs = NONE
        request.allocated_tokens = 0

    def forget_prefixes(self) -> None:
        """Let nobody find what has been computed so far; whoever holds it keeps it."""
        for twins in self._cached.values():
            for run in twins:
                run.key = None
        self._cached.clear()
        self.version += 1

    def _give_back(self, request: Request, own: int, findable: int) -> BlockRun:
        """Queue ``own`` blocks, the last of ``request``; it will find the first ``findable`` of them if it returns."""
        if findable > 0:
            run = request.left_behind = BlockRun(own, owner_blocks=findable)
            self._enqueue(run)
            return run
        self._enqueue_nameless(own)
        return self._newest

    def reset_prefix_cache(self) -> bool:
        """Forget what all blocks hold; False, and nothing is forgotten, while somebody holds any, as in vLLM."""
        if self.used_blocks:
            return False
        for run in self._queue:
            run.key, run.owner_blocks = None, 0
        self._cached.clear()
        self.version += 1
        return True

    def _enqueue(self, run: BlockRun) -> None:
        self._queue[run] = None
        self._newest = run

    def _enqueue_nameless(self, blocks: int) -> None:
        """Blocks that nobody will ask for; neighbours in the queue are one run."""
        newest = self._newest
        if newest.key is None and newest.owner_blocks == 0 and newest.blocks > 0:
            newest.blocks += blocks
        else:
            self._enqueue(BlockRun(blocks))

    def _unqueue(self, run: BlockRun) -> None:
        del self._queue[run]
        self.free_blocks -= run.blocks
        if run is self._newest:
            self._newest = next(reversed(self._queue), BlockRun(0))

    def _reclaim(self, run: BlockRun, blocks: int) -> None:
        """The owner takes the first ``blocks`` blocks of ``run`` back; the rest stays in its place, nameless."""
        run.blocks -= blocks
        run.owner_blocks = 0
        self.free_blocks -= blocks
        if run.blocks == 0 and run in self._queue:
            del self._queue[run]
            if run is self._newest:
                self._newest = next(reversed(self._queue), BlockRun(0))

    def _forget(self, run: BlockRun) -> None:
        twins = self._cached[run.key]
        twins.remove(run)
        if twins:
            self.version += 1  # a twin that somebody holds may come to light, which costs no free blocks
        else:
            del self._cached[run.key]
        run.key = None


class PrefixHit:
    """What a waiting request finds of itself in the cache: units, and blocks of its own from before a preemption.

    ``held_blocks`` of the ``blocks`` are held by others already, so that they need not come from the free ones.
    """

    __slots__ = ("blocks", "held_blocks", "own_blocks", "runs")

    def __init__(self, runs: list[BlockRun], own_blocks: int = 0) -> None:
        self.runs = runs
        self.own_blocks = self.blocks = own_blocks
        self.held_blocks = 0
        for run in runs:
            self.blocks += run.blocks
            if run.holders:
                self.held_blocks += run.blocks


NOTHING_FOUND = PrefixHit([])
