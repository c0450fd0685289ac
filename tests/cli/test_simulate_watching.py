"""``--trace-out``, ``--timeline``, ``--bill`` and ``--price-per-hour``, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from simserve.cli.main import main

RUN = [
    "simulate", "--model", "opt-125m", "--hardware", "A100", "--synthetic", "--num-prompts", "20", "--request-rate",
    "20", "--no-bands",
]  # fmt: skip


@pytest.mark.parametrize("more", [[], ["--replicas", "2"]])
def test_a_trace_and_a_timeline_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str]) -> None:
    pytest.importorskip("matplotlib")
    trace, timeline = tmp_path / "trace.json", tmp_path / "timeline.svg"
    assert main([*RUN, *more, "--json", "--trace-out", str(trace), "--timeline", str(timeline)]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["completed"] == 20
    assert f"wrote {trace}" in err
    steps = [each for each in json.loads(trace.read_text())["traceEvents"] if each["ph"] == "X"]
    assert len(steps) == json.loads(out)["steps"]
    assert "<svg" in timeline.read_text()


def test_what_cannot_be_written_is_said_before_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option in (["--timeline", "plot.txt"], ["--trace-limit", "5"], ["--trace-out", str(tmp_path / "no" / "t")]):
        assert main([*RUN, *option]) == 2
        assert option[0][2:7] in capsys.readouterr().err


@pytest.mark.parametrize("more", [[], ["--replicas", "2"]])
def test_energy_and_cost_at_the_price_of_the_user(capsys: pytest.CaptureFixture[str], more: list[str]) -> None:
    assert main([*RUN, *more, "--json", "--price-per-hour", "7.2"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["cost_usd"] == pytest.approx(7.2 * result["device_hours"])
    assert result["energy_wh_low"] < result["energy_wh"] < result["energy_wh_high"]
    assert main([*RUN, *more, "--bill", "--price-per-hour", "7.2"]) == 0
    out = capsys.readouterr().out
    assert "J per output token" in out
    assert "(as given)" in out
