"""What the soak's well-behaved client takes for an answer in order is what the server sends."""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import pytest

from simserve.config import EngineOptions
from simserve.engines import simulated_engine
from simserve.hardware import load_hardware
from simserve.models import load_model
from simserve.server.run import listening
from simserve.server.simulated import simulated_over

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


async def test_a_good_client_sees_each_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    from soak_clients import GoodClient

    model = load_model("meta-llama/Llama-3.1-8B-Instruct")
    engine = simulated_engine(model, load_hardware("H100"), EngineOptions(), 10.0)
    async with listening(simulated_over(model, engine, [model.name]), "127.0.0.1", 0) as url:
        good = GoodClient(int(url.rsplit(":", 1)[1]), time.monotonic())
        await good.ask(random.Random(1))
    assert good.seen.failures == []
    assert (good.seen.answers, len(good.seen.late_s)) == (1, 2)
