"""All-reduce between processes, here two on the CPU."""

from __future__ import annotations

import pytest

from simserve.calibration.microbench.collective import measure_all_reduce

torch = pytest.importorskip("torch", reason="the microbenchmark measures torch")


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no distributed package")
def test_messages_go_round_between_two_processes() -> None:
    points = measure_all_reduce("cpu", 2, (1024, 1 << 20))

    assert points.devices.tolist() == [2, 2]
    assert points.message_bytes.tolist() == [1024, 1 << 20]
    assert (points.seconds > 0).all()
