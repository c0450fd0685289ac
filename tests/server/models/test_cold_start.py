"""A cold start lasts as long as the slower of disk and link needs for the weights."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from server.serving import serving, settings
from simserve.config import EngineOptions
from simserve.hardware import load_hardware
from simserve.models import load_model
from simserve.server.models import available_models
from simserve.server.models.cold_start import load_seconds
from simserve.simulation import EngineSetup, prepare


def setup(devices: int = 1, hardware: str = "A100") -> EngineSetup:
    model = load_model("meta-llama/Llama-3.1-8B-Instruct")
    return prepare(model, load_hardware(hardware), EngineOptions(tensor_parallel_size=devices))


def test_a_slow_disk_decides() -> None:
    assert load_seconds(setup(), 1e9) == pytest.approx(16.06, abs=0.01)  # 8.03 billion parameters of 2 bytes


def test_devices_share_the_disk_and_not_the_link() -> None:
    assert load_seconds(setup(devices=2), 1e9) == pytest.approx(load_seconds(setup(), 1e9), rel=0.001)
    assert load_seconds(setup(devices=2), 1e15) == pytest.approx(load_seconds(setup(), 1e15) / 2, rel=0.001)


def test_the_link_decides_where_the_disk_is_faster() -> None:
    link = load_hardware("A100").host_link
    assert link is not None
    assert load_seconds(setup(), 1e15) == pytest.approx(16.06e9 / link.bandwidth_bytes_per_s, rel=0.001)
    unlinked = replace(setup(), hardware=load_hardware("A100").model_copy(update={"host_link": None}))
    assert load_seconds(unlinked, 1e15) < 1e-4


COLD = """
engine: {time_scale: 40}
models:
  disk_bandwidth_gb_per_s: DISK
  available: {warm: {path: facebook/opt-125m}, cold: {path: meta-llama/Llama-3.1-8B-Instruct}}
"""


@pytest.mark.parametrize(("disk", "load_s"), [("1", 16.06 / 40), ("8.03", 2 / 40)])
def test_the_settings_say_how_fast_the_disk_and_the_clock_are(disk: str, load_s: float) -> None:
    cold = available_models(settings(COLD.replace("DISK", disk)))[1]
    assert cold.load_s == pytest.approx(load_s, rel=0.001)


async def test_a_request_for_a_cold_model_waits_for_its_weights() -> None:
    async with serving(COLD.replace("DISK", "1")) as client:
        start = time.monotonic()
        async with client.complete(model="cold", max_tokens=1) as response:
            assert response.status == 200
        assert time.monotonic() - start >= 16.06 / 40
