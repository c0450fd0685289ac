"""KV blocks in the host's memory and on its disk, as vLLM's offloading connector and LMCache keep them.

A unit of the prefix cache is copied to the host when it has been computed, whether it is asked for later or not. What
the host's memory forgets goes to the disk, if there is one. Each tier forgets what was asked for least recently.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from simserve.config import EngineOptions
from simserve.errors import ConfigError
from simserve.hardware import HardwareProfile
from simserve.scheduling.fetching_kv_cache import Unit
from simserve.simulation.features.lane import GIGA, Lane

GIB = 2**30

HOST_LINK_SHARE = 0.8
"""Of a host link's nominal bandwidth, what copies between pinned memory and a device reach: 24-26 of 32 GB/s of
PCIe 4.0 x16 and 50-55 of 64 GB/s of PCIe 5.0 x16 are the usual readings of NVIDIA's bandwidthTest. An assumption."""

HOST_LATENCY_S = 20e-6
"""Until a copy is under way, about as long as launching a few kernels. An assumption."""

DISK_BANDWIDTH_BYTES_PER_S = 6.5e9
"""Reading from an NVMe disk for servers (Samsung PM9A3). It writes more slowly; give a figure of your own."""

DISK_LATENCY_S = 100e-6
"""Of a read from flash, about."""


@dataclass(frozen=True)
class TierSizes:
    """Capacities in KV blocks, what a block takes, and how fast it moves. ``disk_blocks`` is 0 where there is no disk.

    The host link is each device's own and carries its share of a block, ``device_block_bytes``; the disk is one, and
    carries whole blocks.
    """

    host_blocks: int
    disk_blocks: int
    device_block_bytes: int
    block_bytes: int
    host_bytes_per_s: float
    host_latency_s: float
    disk_bytes_per_s: float
    disk_latency_s: float


def tier_sizes(options: EngineOptions, hardware: HardwareProfile, device_block_bytes: int) -> TierSizes | None:
    """The tiers that ``options`` ask for; None if for none.

    Raises :class:`ConfigError` for tiers that hold no block, and for a device whose link to the host is not known.
    """
    if options.kv_offloading_size is None:
        return None
    block_bytes = device_block_bytes * options.tensor_parallel_size
    host_blocks = _blocks("--kv-offloading-size", options.kv_offloading_size, block_bytes)
    disk_blocks = 0
    if options.kv_disk_size is not None:
        disk_blocks = _blocks("--kv-disk-size", options.kv_disk_size, block_bytes)
    bandwidth = options.kv_offloading_bandwidth
    if bandwidth is None and hardware.host_link is None:
        raise ConfigError(
            f"profile {hardware.name} has no host_link: say how fast it is with --kv-offloading-bandwidth"
        )
    nominal = hardware.host_link.bandwidth_bytes_per_s if hardware.host_link else 0.0
    latency_us, disk_latency_us = options.kv_offloading_latency_us, options.kv_disk_latency_us
    disk_bandwidth = options.kv_disk_bandwidth
    return TierSizes(
        host_blocks=host_blocks,
        disk_blocks=disk_blocks,
        device_block_bytes=device_block_bytes,
        block_bytes=block_bytes,
        host_bytes_per_s=HOST_LINK_SHARE * nominal if bandwidth is None else bandwidth * GIGA,
        host_latency_s=HOST_LATENCY_S if latency_us is None else latency_us * 1e-6,
        disk_bytes_per_s=DISK_BANDWIDTH_BYTES_PER_S if disk_bandwidth is None else disk_bandwidth * GIGA,
        disk_latency_s=DISK_LATENCY_S if disk_latency_us is None else disk_latency_us * 1e-6,
    )


def _blocks(flag: str, size_gib: float, block_bytes: int) -> int:
    blocks = int(size_gib * GIB // block_bytes)
    if blocks < 1:
        raise ConfigError(f"{flag} {size_gib:g} GiB holds no KV block, which takes {block_bytes:,} bytes; give more")
    return blocks


class Tier:
    """Units with the time from which they are there, least recently used first."""

    def __init__(self, most_blocks: int) -> None:
        self.used_blocks = 0
        self._most_blocks = most_blocks
        self._ready_s: OrderedDict[Unit, float] = OrderedDict()

    def has(self, unit: Unit, now_s: float) -> bool:
        """Whether ``unit`` is there and can be read."""
        return self._ready_s.get(unit, now_s + 1.0) <= now_s

    def __contains__(self, unit: Unit) -> bool:
        return unit in self._ready_s

    def touch(self, unit: Unit) -> None:
        """Forget it later than all others, if it is here."""
        if unit in self._ready_s:
            self._ready_s.move_to_end(unit)

    def put(self, unit: Unit, ready_s: float) -> None:
        """Take ``unit`` in, which is complete at ``ready_s``; there must be room."""
        self._ready_s[unit] = ready_s
        self.used_blocks += unit[1]

    def make_room(self, unit: Unit) -> list[tuple[Unit, float]] | None:
        """Forget the least recently used until ``unit`` fits: these, with when they were complete. None: never."""
        if unit[1] > self._most_blocks:
            return None
        gone = []
        while self.used_blocks + unit[1] > self._most_blocks:
            forgotten, ready_s = self._ready_s.popitem(last=False)
            self.used_blocks -= forgotten[1]
            gone.append((forgotten, ready_s))
        return gone


class KVTiers:
    """The tiers below the device of one replica. Whoever asks sets ``now_s``, simulated seconds, before."""

    def __init__(self, sizes: TierSizes) -> None:
        self.sizes = sizes
        self.now_s = 0.0
        self.host = Tier(sizes.host_blocks)
        self.disk = Tier(sizes.disk_blocks)
        self.up = Lane(sizes.host_bytes_per_s, sizes.host_latency_s)
        self.down = Lane(sizes.host_bytes_per_s, sizes.host_latency_s)
        self.disk_lane = Lane(sizes.disk_bytes_per_s, sizes.disk_latency_s)

    def find(self, units: Sequence[Unit]) -> int:
        """See :class:`~simserve.scheduling.fetching.LowerTiers`; those found are the last to be forgotten."""
        found = 0
        for unit in units:
            if not (self.host.has(unit, self.now_s) or self.disk.has(unit, self.now_s)):
                break
            found += 1
        self.touch(units[:found])
        return found

    def touch(self, units: Sequence[Unit]) -> None:
        """See :class:`~simserve.scheduling.fetching.LowerTiers`; ends of prompts go before their beginnings."""
        for unit in reversed(units):
            self.host.touch(unit)
            self.disk.touch(unit)

    def fetch(self, units: Sequence[Unit], begin_s: float) -> tuple[float, int, int]:
        """Bring ``units``, which were found, to the device: when they are there, and blocks from host and from disk.

        What is on disk alone comes by way of the host's memory, which keeps it.
        """
        on_disk = [unit for unit in units if not self.host.has(unit, self.now_s)]
        disk_blocks = sum(blocks for _, blocks in on_disk)
        host_blocks = sum(blocks for _, blocks in units) - disk_blocks
        end_s = begin_s
        if host_blocks:
            end_s = self.up.send(host_blocks * self.sizes.device_block_bytes, begin_s)
        if disk_blocks:
            read_s = self.disk_lane.send(disk_blocks * self.sizes.block_bytes, begin_s)
            for unit in on_disk:
                self._keep(unit, read_s, begin_s)
            end_s = max(end_s, self.up.send(disk_blocks * self.sizes.device_block_bytes, read_s))
        return end_s, host_blocks, disk_blocks

    def store(self, units: Sequence[Unit], begin_s: float) -> int:
        """Copy those of ``units`` that the host does not have, from ``begin_s`` on; how many blocks they are."""
        new = [unit for unit in dict.fromkeys(units) if unit not in self.host]
        blocks = sum(size for _, size in new)
        if blocks:
            done_s = self.down.send(blocks * self.sizes.device_block_bytes, begin_s)
            for unit in reversed(new):  # prompts are forgotten from their ends
                self._keep(unit, done_s, begin_s)
        return blocks

    def _keep(self, unit: Unit, ready_s: float, now_s: float) -> None:
        gone = None if unit in self.host else self.host.make_room(unit)
        if gone is None:
            return
        self.host.put(unit, ready_s)
        for forgotten, complete_s in gone:
            if complete_s <= now_s and forgotten not in self.disk:
                self._write(forgotten, now_s)

    def _write(self, unit: Unit, now_s: float) -> None:
        if self.disk.make_room(unit) is not None:
            self.disk.put(unit, self.disk_lane.send(unit[1] * self.sizes.block_bytes, now_s))
