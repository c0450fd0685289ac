"""All-reduce between the devices of this machine, each driven by a process of its own."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from simserve.calibration.points import AllReducePoints

SIZES_BYTES = tuple(4**i * 1024 for i in range(9))
"""1 KiB to 64 MiB."""
WARM_UPS, REPEATS = 10, 20
BACKENDS = {"gpu": "nccl", "cpu": "gloo"}


def measure_all_reduce(kind: str, devices: int, sizes_bytes: tuple[int, ...] = SIZES_BYTES) -> AllReducePoints:
    """Seconds of an all-reduce of each size among ``devices`` processes, as the first one sees it (20th percentile)."""
    from torch.multiprocessing.spawn import spawn

    with TemporaryDirectory() as folder:
        result = Path(folder) / "seconds.npy"
        address = f"tcp://127.0.0.1:{_free_port()}"
        spawn(_worker, args=(kind, devices, address, sizes_bytes, str(result)), nprocs=devices)  # type: ignore[no-untyped-call]
        seconds = np.load(result)
    return AllReducePoints(seconds, np.full(len(sizes_bytes), float(devices)), np.array(sizes_bytes, dtype=float))


def _worker(rank: int, kind: str, devices: int, address: str, sizes_bytes: tuple[int, ...], result: str) -> None:
    import torch
    import torch.distributed as distributed

    device = torch.device("cuda", rank) if kind == "gpu" else torch.device("cpu")
    if kind == "gpu":
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(max((os.cpu_count() or 1) // devices, 1))
    distributed.init_process_group(BACKENDS[kind], init_method=address, rank=rank, world_size=devices)
    seconds = []
    for size in sizes_bytes:
        message = torch.zeros(size // 2, dtype=torch.bfloat16, device=device)
        repeats = []
        for _ in range(WARM_UPS + REPEATS):
            distributed.barrier()
            start_s = time.perf_counter()
            distributed.all_reduce(message)
            if kind == "gpu":
                torch.cuda.synchronize(device)
            repeats.append(time.perf_counter() - start_s)
        seconds.append(float(np.percentile(repeats[WARM_UPS:], 20)))
    if rank == 0:
        np.save(result, seconds)
    distributed.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
