"""LoRA adapters of a replica: slots in the device's memory, a cache in the host's, and how long loading takes.

As in vLLM's LRU managers of both: what is on the device is in the host's cache too, and each forgets what was used
least recently. Loading happens before the step that needs it, which waits, and with it everybody in it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from simserve.config import EngineOptions
from simserve.errors import ConfigError
from simserve.hardware import HardwareProfile
from simserve.latency.adapters import ADAPTERS, AdapterProducts
from simserve.latency.host import VLLM_V1, launch_s_of
from simserve.latency.memory import MemoryPlan, blocks_of
from simserve.models import ModelSpec
from simserve.simulation.features.kv_tiers import DISK_BANDWIDTH_BYTES_PER_S, DISK_LATENCY_S, HOST_LINK_SHARE
from simserve.simulation.features.lane import GIGA
from simserve.simulation.formats import Formats

DEFAULT_RANK, DEFAULT_SLOTS = 16, 1
"""As in vLLM."""

LOAD_S = 0.1
"""Host time to open an adapter, check its matrices one by one and put them into pinned memory. An assumption: 25 ms
(github.com/huggingface/peft, issue 981) to 0.5-1 s (github.com/predibase/lorax, issue 433) have been reported."""

LAUNCHES_PER_MATRIX = 2
"""A slot's matrix is set to zero, then copied into."""


@dataclass(frozen=True)
class AdapterSetup:
    """``slots`` on the device, ``cached`` adapters in the host's memory, and seconds that it takes to get there.

    ``products`` say what a slot takes on each device.
    """

    slots: int
    cached: int
    rank: int
    read_s: float
    copy_s: float
    products: AdapterProducts

    def in_memory(
        self, plan: MemoryPlan, model: ModelSpec, hardware: HardwareProfile, options: EngineOptions
    ) -> MemoryPlan:
        """``plan`` with all slots beside the weights, whether anybody uses them or not."""
        weights = plan.weight_bytes + self.slots * self.products.slot_bytes
        taken = weights + plan.activation_bytes + plan.runtime_bytes
        devices = options.tensor_parallel_size
        blocks = blocks_of(model, hardware, devices, plan.usable_bytes, taken, plan.block_bytes)
        return replace(plan, weight_bytes=weights, num_blocks=blocks)


def adapters_of(
    model: ModelSpec, hardware: HardwareProfile, options: EngineOptions, formats: Formats, edge: int = 0
) -> AdapterSetup | None:
    """What ``options`` ask for; None without ``enable_lora``. Raises :class:`ConfigError` for what cannot be."""
    if not options.enable_lora:
        return None
    if model.moe is not None:
        raise ConfigError(
            f"--enable-lora: {model.name} has experts, whose adapters cannot be simulated; leave it out or take a "
            "dense model"
        )
    rank, slots = options.max_lora_rank or DEFAULT_RANK, options.max_loras or DEFAULT_SLOTS
    slowness = (1 + ADAPTERS) ** edge

    def products(devices: int) -> AdapterProducts:
        return AdapterProducts(
            model, hardware, dtype=formats.dtype, tensor_parallel_size=devices, rank=rank, slowness=slowness
        )

    mine = products(options.tensor_parallel_size)
    load_s = LOAD_S if options.lora_load_ms is None else options.lora_load_ms * 1e-3
    disk = options.lora_disk_bandwidth
    read_bytes_per_s = DISK_BANDWIDTH_BYTES_PER_S if disk is None else disk * GIGA
    return AdapterSetup(
        slots,
        options.max_cpu_loras or slots,
        rank,
        load_s + DISK_LATENCY_S + products(1).slot_bytes / read_bytes_per_s,
        LAUNCHES_PER_MATRIX * mine.matrices * launch_s_of(hardware, VLLM_V1)
        + mine.slot_bytes / _link_bytes_per_s(hardware, options),
        mine,
    )


def _link_bytes_per_s(hardware: HardwareProfile, options: EngineOptions) -> float:
    if options.lora_link_bandwidth is not None:
        return options.lora_link_bandwidth * GIGA
    if hardware.host_link is None:
        raise ConfigError(
            f"profile {hardware.name} has no host_link, over which adapters come: say how fast it is with "
            "--lora-link-bandwidth"
        )
    return hardware.host_link.bandwidth_bytes_per_s * HOST_LINK_SHARE


class AdapterStore:
    """Which adapters are where, by number; both orders are from the least to the most recently used."""

    def __init__(self, setup: AdapterSetup) -> None:
        self.setup = setup
        self.on_device: OrderedDict[int, None] = OrderedDict()
        self.on_host: OrderedDict[int, None] = OrderedDict()

    def use(self, adapters: Sequence[int]) -> tuple[list[int], list[int]]:
        """Have ``adapters``, at most as many as there are slots, on the device; which came from disk, which at all."""
        needed = set(adapters)
        read = [adapter for adapter in adapters if adapter not in self.on_host]
        copied = [adapter for adapter in adapters if adapter not in self.on_device]
        for adapter in adapters:
            self.on_host[adapter] = self.on_device[adapter] = None
            self.on_host.move_to_end(adapter)
            self.on_device.move_to_end(adapter)
        for gone in _oldest_but(self.on_host, needed, self.setup.cached):
            del self.on_host[gone]
            self.on_device.pop(gone, None)
        for gone in _oldest_but(self.on_device, needed, self.setup.slots):
            del self.on_device[gone]
        return read, copied

    def seconds(self, read: int, copied: int) -> float:
        """How long it takes to load so many, one after the other."""
        return read * self.setup.read_s + copied * self.setup.copy_s


def _oldest_but(held: OrderedDict[int, None], needed: set[int], room: int) -> list[int]:
    surplus = len(held) - room
    if surplus <= 0:
        return []
    return [adapter for adapter in held if adapter not in needed][:surplus]
