"""``simserve calibrate`` and ``simserve validate engine``, quickly and on whatever machine this is."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from simserve.calibration.microbench import contention
from simserve.calibration.microbench.contention import SystemTimes
from simserve.cli.main import main
from simserve.hardware import HardwareProfile, load_hardware

torch = pytest.importorskip("torch", reason="calibrating needs torch")

QUICK = ("--quick", "--threads", "1", "--allow-noise")
FEW = ("--repeats", "1", "--num-prompts", "6", "--output-len", "uniform:2:9", "--request-rate", "inf", "--allow-noise")


@pytest.fixture(scope="module", autouse=True)
def threads() -> Iterator[None]:
    """Calibrating sets torch's threads for good: other tests get theirs back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile of this machine."""
    file = tmp_path_factory.mktemp("profiles") / "here.yaml"
    assert main(["calibrate", *QUICK, "--model", "simserve/tiny-llama", "--out", str(file)]) == 0
    return file


@pytest.fixture(scope="module")
def profile(file: Path) -> HardwareProfile:
    return load_hardware(str(file))


def test_the_profile_says_how_it_came_about(profile: HardwareProfile) -> None:
    calibration = profile.calibration
    assert calibration is not None
    conditions = calibration.conditions
    assert conditions is not None

    assert (profile.name, profile.kind, profile.confidence) == ("here", "cpu", "low")
    assert (conditions.dtype, conditions.threads, conditions.suite) == ("float32", 1, "quick")
    assert conditions.versions["torch"] == torch.__version__
    assert calibration.host is not None
    assert 0 < calibration.host.step_s + calibration.host.request_s < 0.1
    (anchors,) = calibration.step_anchors
    assert anchors.model == "simserve/tiny-llama"
    assert anchors.held_out_of("steps") is not None


def test_everything_else_takes_the_profile(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = ["--model", "simserve/tiny-llama", "--hardware", str(file)]
    workload = ["--synthetic", "--num-prompts", "20", "--request-rate", "5", "--input-len", "50", "--output-len", "10"]
    assert main(["simulate", *model, *workload, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)

    assert result["hardware_profile"] == "here"
    assert "from whole steps of this model" in result["uncertainty"]


def test_the_profile_is_shown_with_its_conditions_and_anchors(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles", "show", str(file)]) == 0
    shown = capsys.readouterr().out

    assert "conditions" in shown
    assert "threads 1" in shown
    assert "whole steps of simserve/tiny-llama" in shown


def test_the_simulation_makes_the_engines_own_steps(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "engine", "--hardware", str(file), *FEW, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)

    assert said["same_steps"], said["difference"]
    assert said["model"] == "simserve/tiny-llama"
    assert [step["kind"] for step in said["steps"]][-1] == "all"
    assert {latency["metric"] for latency in said["latencies"]} == {"TTFT", "TPOT", "E2E"}
    assert all(latency["measured_s"] > 0 for latency in said["latencies"])


def test_preemptions_too_are_the_engines_own(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tight = ("--num-gpu-blocks", "60", "--max-num-seqs", "8", "--output-len", "uniform:20:60")
    assert main(["validate", "engine", "--hardware", str(file), *FEW, *tight, "--json"]) == 0

    said = json.loads(capsys.readouterr().out)
    assert said["same_steps"], said["difference"]
    assert said["preemptions"] > 0


def test_a_check_is_a_table_and_a_picture_and_fails_beyond_the_largest_error(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "check.png"
    arguments = ["validate", "engine", "--hardware", str(file), *FEW, "--plot", str(picture)]

    assert main([*arguments, "--max-error", "0.0001"]) == 1

    shown = capsys.readouterr().out
    assert "made the same steps" in shown
    assert "runs apart" in shown
    assert picture.stat().st_size > 10_000


def test_a_profile_of_other_conditions_is_refused(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["validate", "engine", "--hardware", str(file), *FEW, "--dtype", "bfloat16"]

    assert main(arguments) == 2
    assert "here was calibrated with dtype float32, and here it is bfloat16" in capsys.readouterr().err


def test_a_busy_machine_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ticks = itertools.count()
    monkeypatch.setattr(contention, "system_times", lambda: SystemTimes(busy_s=100.0 * next(ticks), steal_s=0.0))
    out = tmp_path / "busy.yaml"

    assert main(["calibrate", "--quick", "--threads", "1", "--out", str(out)]) == 2

    said = capsys.readouterr().err
    assert "other programs used" in said
    assert "--allow-noise" in said
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["calibrate", "--out", "profile.txt"], "must end in .yaml"),
        (["calibrate", "--out", "no/such/folder/x.yaml"], "the folder of --out no/such/folder/x.yaml does not exist"),
        (["calibrate", "--out", "x.yaml", "--model", "no-such-model"], "model 'no-such-model' is not known"),
        (["validate", "engine", "--repeats", "0"], "--repeats must be at least 1"),
        (["validate", "engine", "--hardware", "A100"], "A100-SXM4-80GB was calibrated with none"),
        (["validate", "engine", "--hardware", "A100", "--calibrate-on", "x"], "exclude each other"),
    ],
)
def test_what_cannot_be_is_refused(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert said in capsys.readouterr().err
