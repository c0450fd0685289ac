"""How long it takes until a model that was not in memory can answer."""

from __future__ import annotations

from simserve.simulation import EngineSetup


def load_seconds(setup: EngineSetup, disk_bytes_per_s: float) -> float:
    """Seconds to read the weights from a disk that all devices share and to copy each device's part over its own link.

    Both go on at the same time, so the slower one counts. A device without a link to the host, or whose profile does
    not state it, computes in the memory that the disk fills. Starting the engine (processes, compiling, capturing
    graphs) takes more, and is not in it.
    """
    devices = setup.options.tensor_parallel_size
    read_s = setup.weight_bytes * devices / disk_bytes_per_s
    link = setup.hardware.host_link
    return max(read_s, setup.weight_bytes / link.bandwidth_bytes_per_s if link else 0.0)
