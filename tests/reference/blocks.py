"""KV blocks and the prefix cache, block by block, as in vLLM V1's KV cache manager (``allocate_slots``, ``free``).

A *unit* is what the cache knows by one identity: a block of a hashed prompt, or the several blocks that one hash id of
a trace stands for. It is found whole or not at all. Freed blocks stay findable until the LRU queue hands them
out again; a request returns its blocks last first, so that the ends of prompts are forgotten before their beginnings.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from itertools import islice

from reference.request import Request


class CachedUnit:
    """Blocks that together hold one unit; gone from the cache as soon as one of them is reused."""

    __slots__ = ("blocks", "key")

    def __init__(self, key: Hashable, blocks: list[Block]) -> None:
        self.key = key
        self.blocks = blocks


class Block:
    """One KV block: how many requests hold it, and the unit it is findable as."""

    __slots__ = ("block_id", "holders", "unit")

    def __init__(self, block_id: int) -> None:
        self.block_id = block_id
        self.holders = 0
        self.unit: CachedUnit | None = None


class UnregisteredUnits:
    """The units of a running request that are not in the cache yet, first to last."""

    __slots__ = ("_next_blocks", "_next_key", "_start", "_units")

    def __init__(self, request: Request, block_size: int, found: int) -> None:
        self._units = request.units_of_blocks(block_size)
        self._start = sum(blocks for _, blocks in islice(self._units, found))
        self._next_key, self._next_blocks = next(self._units)

    def up_to(self, full_blocks: int) -> Iterator[tuple[Hashable, int, int]]:
        """Key, first and past-the-last block of each unit that ``full_blocks`` computed blocks complete."""
        while self._start + self._next_blocks <= full_blocks:
            yield self._next_key, self._start, self._start + self._next_blocks
            self._start += self._next_blocks
            self._next_key, self._next_blocks = next(self._units)


class KVBlocks:
    """All blocks of one engine.

    ``num_blocks`` counts vLLM's null block, which is never handed out: ``usable_blocks`` is one less.
    """

    def __init__(self, num_blocks: int, block_size: int, prefix_caching: bool) -> None:
        self.block_size = block_size
        self.prefix_caching = prefix_caching
        self.usable_blocks = num_blocks - 1
        self._free: dict[int, Block] = {index: Block(index) for index in range(1, num_blocks)}
        self._cached: dict[Hashable, list[CachedUnit]] = {}
        self._held: dict[Hashable, list[Block]] = {}
        self._own: dict[Hashable, list[CachedUnit]] = {}
        self._unregistered: dict[Hashable, UnregisteredUnits] = {}

    @property
    def free_blocks(self) -> int:
        return len(self._free)

    @property
    def used_blocks(self) -> int:
        return self.usable_blocks - len(self._free)

    def block_ids(self, request: Request) -> list[int]:
        """The block table of ``request``, in the order of its tokens."""
        return [block.block_id for block in self._held.get(request.request_id, [])]

    def find_prefix(self, request: Request) -> list[CachedUnit]:
        """The longest run of cached units that ``request`` begins with, short of its last known token.

        One token is always left to compute, because something must be sampled from.
        """
        if not self.prefix_caching:
            return []
        found: list[CachedUnit] = []
        room = (request.known_tokens - 1) // self.block_size
        for key, blocks in request.units_of_blocks(self.block_size):
            twins = self._cached.get(key)
            if twins is None or blocks > room:
                break
            found.append(twins[0])
            room -= blocks
        return found

    def admit(
        self, request: Request, prefix: list[CachedUnit], tokens: int, reserve_tokens: int, keep_free: int = 0
    ) -> bool:
        """Give a waiting request its cached ``prefix`` and blocks for ``tokens`` more tokens, or nothing at all.

        ``reserve_tokens`` (>= prefix + tokens) must fit too, though only ``tokens`` are allocated now.
        """
        prefix_blocks = [block for unit in prefix for block in unit.blocks]
        from_free = sum(block.holders == 0 for block in prefix_blocks)
        if self._blocks_for(reserve_tokens) - len(prefix_blocks) + from_free + keep_free > self.free_blocks:
            return False
        for block in prefix_blocks:
            if block.holders == 0:
                del self._free[block.block_id]
            block.holders += 1
        self._forget_left_behind(request, prefix)
        self._held[request.request_id] = prefix_blocks
        self._unregistered[request.request_id] = UnregisteredUnits(request, self.block_size, len(prefix))
        return self.extend(request, len(prefix_blocks) * self.block_size + tokens)

    def extend(self, request: Request, total_tokens: int) -> bool:
        """Make room for ``total_tokens`` tokens of a running request; False, and no change, if blocks are short."""
        held = self._held[request.request_id]
        missing = self._blocks_for(total_tokens) - len(held)
        if missing > self.free_blocks:
            return False
        for _ in range(missing):
            held.append(self._take_oldest())
        if self.prefix_caching:
            # A token that a step still running samples has no content yet, so its block has no hash.
            self.register(request, min(total_tokens, request.input_tokens + request.delivered_tokens))
        return True

    def register(self, request: Request, tokens: int) -> None:
        """Make the units that the first ``tokens`` tokens of ``request`` fill findable."""
        if self.prefix_caching:
            self._register_full_units(request, tokens // self.block_size)

    def free(self, request: Request) -> None:
        """Take back all blocks of ``request``; what is cached in them stays findable until they are reused."""
        for block in reversed(self._held.pop(request.request_id, [])):
            block.holders -= 1
            if block.holders == 0:
                self._free[block.block_id] = block
        self._unregistered.pop(request.request_id, None)

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.block_size)

    def _forget_left_behind(self, request: Request, prefix: list[CachedUnit]) -> None:
        """What a preempted request left and does not find when it returns, it will not look for again."""
        for unit in self._own.get(request.request_id, []):
            if unit not in prefix and unit in self._cached.get(unit.key, []):
                self._forget(unit)
        self._own[request.request_id] = [unit for unit in prefix if "own" in unit.key]

    def _take_oldest(self) -> Block:
        block = self._free.pop(next(iter(self._free)))
        if block.unit is not None:
            self._forget(block.unit)
        block.holders = 1
        return block

    def _forget(self, unit: CachedUnit) -> None:
        twins = self._cached[unit.key]
        twins.remove(unit)
        if not twins:
            del self._cached[unit.key]
        for block in unit.blocks:
            block.unit = None

    def _register_full_units(self, request: Request, full_blocks: int) -> None:
        held = self._held[request.request_id]
        for key, start, stop in self._unregistered[request.request_id].up_to(full_blocks):
            unit = CachedUnit(key, held[start:stop])
            self._cached.setdefault(key, []).append(unit)
            if "own" in key:
                self._own.setdefault(request.request_id, []).append(unit)
            for block in unit.blocks:
                block.unit = unit
