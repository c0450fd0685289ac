"""A timeline adds up to the run, however long that is, and is drawn as a picture or a page."""

from __future__ import annotations

from pathlib import Path

import pytest

from simserve.config import EngineOptions
from simserve.errors import ConfigError
from simserve.hardware import load_hardware
from simserve.models import load_model
from simserve.simulation import simulate
from simserve.simulation.cluster import Defaults, cluster_of, simulate_cluster
from simserve.simulation.watching import Timeline
from simserve.simulation.watching.plot import Mark, write_timeline
from simserve.simulation.watching.timeline import BATCH, KV, MOST_BINS, TOKENS
from simserve.workload import synthetic_workload

MODEL, HARDWARE = load_model("facebook/opt-125m"), load_hardware("A100")


@pytest.mark.parametrize("rate", [100.0, 1.0, 0.01])
def test_bins_add_up_to_the_run(rate: float) -> None:
    timeline = Timeline()
    workload = synthetic_workload(60, rate, 200, 30, seed=1)
    done = simulate(workload, MODEL, HARDWARE, EngineOptions(), watchers=[timeline])
    assert timeline.bins <= MOST_BINS
    assert len(timeline.times_s) == timeline.bins
    tokens = timeline.mean(0, TOKENS).sum() * timeline.width_s
    computed = done.totals.computed_prefill_tokens + done.records.output_tokens.sum() - len(done.records)
    assert tokens == pytest.approx(computed)
    batch = timeline.mean(0, BATCH).sum() * timeline.width_s
    assert batch == pytest.approx(done.totals.mean_running_requests * done.totals.duration_s)
    assert 0 < timeline.mean(0, KV).max() <= 1


@pytest.mark.parametrize("ending", [".svg", ".png", ".html"])
@pytest.mark.parametrize("replicas", [2, 12])
def test_it_is_drawn(tmp_path: Path, ending: str, replicas: int) -> None:
    pytest.importorskip("matplotlib")
    timeline = Timeline()
    spec = cluster_of(
        {
            "groups": [{"name": "all", "replicas": replicas}],
            "failures": [{"group": "all", "replica": 0, "at_s": 0.5, "down_s": 1.0}],
        },
        "test",
    )
    workload = synthetic_workload(60, 30.0, 200, 30, seed=1)
    done = simulate_cluster(workload, spec, Defaults(MODEL, HARDWARE, EngineOptions()), watchers=[timeline])
    assert done.members[0].failed_at_s == (0.5,)
    path = tmp_path / f"timeline{ending}"
    write_timeline(path, timeline, [Mark(0.5, "failure")], "a <title>")
    written = path.read_bytes()
    assert written.startswith({".svg": b"<?xml", ".png": b"\x89PNG", ".html": b"<!doctype html>"}[ending])
    if ending == ".html":
        assert b"a &lt;title&gt;" in written
        assert b"<svg" in written


def test_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.png, \.svg, \.html"):
        write_timeline(tmp_path / "timeline.jpg", Timeline(), [], "")
