"""``simserve profiles`` and ``simserve validate operators``: what stands behind a profile, and one of your own."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from simserve.calibration.shipped import TABLES
from simserve.calibration.tables import FORMATS as READ
from simserve.cli.main import main
from simserve.cli.profiles import FORMATS
from simserve.hardware import list_hardware, load_hardware

OPS = Path(__file__).parents[2].parent / "shared" / "measurements" / "ops"
needs_tables = pytest.mark.skipif(not OPS.is_dir(), reason=f"the published operator tables are not in {OPS}")

SHAPES = [(4096, 4096), (6144, 4096), (28672, 4096), (4096, 14336)]
TOKENS = [1, 16, 64, 256, 1024, 4096]


def gemm_table(slower: float = 2.0) -> str:
    """Matrix products that take ``slower`` times as long as an L4 needs at least (121 TFLOP/s, 300 GB/s)."""
    rows = ["m,n,k,time_s"]
    for n, k in SHAPES:
        for m in TOKENS:
            bound_s = max(2 * m * n * k / 121e12, 2 * (n * k + m * (n + k)) / 300e9)
            rows.append(f"{m},{n},{k},{slower * bound_s}")
    return "\n".join(rows) + "\n"


def import_it(folder: Path, text: str, *options: str, table_format: str = "csv") -> int:
    table = folder / "table.csv"
    table.write_text(text, encoding="utf-8")
    out = str(folder / "mine.yaml")
    arguments = ["profiles", "import", "--format", table_format, str(table), "--hardware", "L4", "--out", out]
    return main([*arguments, *options])


def test_every_profile_is_listed_with_what_it_rests_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles", "list", "--json"]) == 0
    listed = {profile["name"]: profile for profile in json.loads(capsys.readouterr().out)}

    assert list(listed) == list_hardware()
    basis = {name: listed[name]["step_times"] for name in ("A100-SXM4-80GB", "H200", "RTX3090", "CPU")}
    assert list(basis.values()) == ["calibrated", "derived", "partly derived", "data sheet"]
    assert listed["CPU"]["uncertainty"] == pytest.approx(0.84, abs=0.01)


def test_the_list_is_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles", "list"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in list_hardware())


def test_a_profile_shows_the_provenance_and_errors_of_its_operators(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles", "show", "RTX 3090"]) == 0
    shown = capsys.readouterr().out
    for words in ("LLMServingSim", "MIT", "error, held-out shapes", "derived from", "25,769,803,776"):
        assert words in shown

    assert main(["profiles", "show", "RTX3090", "--json"]) == 0
    gemm = json.loads(capsys.readouterr().out)["calibration"]["gemm"]
    assert {held["of"] for held in gemm["held_out"]} == {"points", "shapes"}
    assert "rows" not in gemm


@pytest.mark.parametrize(("name", "curves"), [("L40S", True), ("CPU", False)])
def test_the_roofline_is_drawn_with_the_curves_there_are(tmp_path: Path, name: str, curves: bool) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib, which draws, is not installed")
    from simserve.calibration.roofline import reached

    profile, picture = load_hardware(name), tmp_path / "roofline.svg"
    assert main(["profiles", "plot", name, "--out", str(picture)]) == 0
    assert "<svg" in picture.read_text()
    assert bool(reached(profile)) is curves
    for intensity, flops_per_s in reached(profile).values():
        roof = np.minimum(profile.peak_flops_for("bfloat16"), intensity * profile.bandwidth_bytes_per_s)
        assert (flops_per_s <= 1.0001 * roof).all()


def test_without_matplotlib_one_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["profiles", "plot", "L4", "--out", "never.svg"]) == 2
    assert "pip install 'simserve[plot]'" in capsys.readouterr().err


def test_formats_on_offer_are_those_that_can_be_read() -> None:
    assert tuple(READ) == FORMATS


def test_measurements_of_ones_own_become_a_profile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Everything took twice the roofline's time: so say the curves, of whose error the profile tells."""
    assert import_it(tmp_path, gemm_table(slower=2.0), "--source", "my desk", "--licence", "mine") == 0
    assert "gemm" in capsys.readouterr().out

    mine = load_hardware(str(tmp_path / "mine.yaml"))
    gemm = mine.calibration.gemm
    assert (mine.name, mine.aliases, gemm.source, gemm.licence, gemm.points) == ("mine", (), "my desk", "mine", 24)
    assert gemm.rows["28672x4096"][0] == pytest.approx(0.5, abs=0.01)
    assert {held.of for held in gemm.held_out} == {"points", "shapes"}
    assert mine.calibration.decode_attention == load_hardware("L4").calibration.decode_attention
    assert sorted(file.name for file in tmp_path.iterdir()) == ["mine.yaml", "table.csv"]


@pytest.mark.parametrize(
    ("text", "table_format", "reason"),
    [
        (gemm_table() + "8,4096,4096,fast\n", "csv", "line 26: time_s is 'fast', which is not a number"),
        (gemm_table() + "0,4096,4096,1\n", "csv", "line 26: m is 0, but must be a whole number from 1"),
        (gemm_table() + "8,4096\n", "csv", "line 26: has not as many values as there are columns"),
        (gemm_table(), "vidur", "line 1: is no vidur table"),
        ("m,n,k,time_s\n8,4096,4096,1\n", "csv", "the tables have only 1 matrix products, but 20 are needed"),
        (gemm_table(slower=0.5), "csv", "24 of 24 matrix products are faster than L4 can be by its data sheet"),
    ],
)
def test_a_broken_or_foreign_table_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, table_format: str, reason: str
) -> None:
    assert import_it(tmp_path, text, table_format=table_format) == 2
    error = capsys.readouterr().err
    assert reason in error
    assert error.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]


def test_a_profile_must_be_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert import_it(tmp_path, gemm_table(), "--out", "mine.json") == 2
    assert "must end in .yaml" in capsys.readouterr().err


@needs_tables
@pytest.mark.parametrize(
    ("table_format", "files", "hardware", "operators"),
    [
        ("llmservingsim", "RTX4090/perf_*.csv", "RTX4090", {"gemm", "decode_attention", "mixed_decode", "elementwise"}),
        ("vidur", "A100-SXM4-80GB/a100_Meta*.csv", "A100", {"elementwise"}),
        ("aiconfigurator", "L40S/vllm0.24.0_context*.csv", "L40S", {"prefill_attention"}),
    ],
)
def test_published_tables_are_imported(
    tmp_path: Path, table_format: str, files: str, hardware: str, operators: set[str]
) -> None:
    tables, out = [str(file) for file in sorted(OPS.glob(files))], tmp_path / "mine.yaml"
    command = ["profiles", "import", "--format", table_format, *tables, "--hardware", hardware, "--out", str(out)]
    assert main([*command, "--source", "here"]) == 0
    calibration = load_hardware(str(out)).calibration
    assert all(getattr(calibration, operator).source == "here" for operator in operators)


@needs_tables
def test_operators_are_held_out_again(capsys: pytest.CaptureFixture[str]) -> None:
    """The very errors that the shipped profile states."""
    assert main(["validate", "operators", str(OPS), "--hardware", "RTX4090", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["operators"]
    stated = [held.model_dump() for held in load_hardware("RTX4090").calibration.gemm.held_out]
    assert [{key: row[key] for key in stated[0]} for row in found if row["operator"] == "gemm"] == stated

    assert main(["validate", "operators", str(OPS), "--hardware", "RTX4090", "--seeds", "2"]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "gemm" in line and "shapes" in line)
    assert "–" in row, "a range, as other shapes are held out each time"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "nowhere is not a folder"),
        ([".", "--seeds", "0"], "--seeds must be at least 1, not 0"),
        (["nowhere", "--hardware", "CPU"], f"no operator of CPU was measured; choose one of {', '.join(TABLES)}"),
    ],
)
def test_what_cannot_be_validated_is_one_sentence(
    capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    assert main(["validate", "operators", *arguments]) == 2
    assert sentence in capsys.readouterr().err
