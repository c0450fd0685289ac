"""The wheel that this checkout makes works where there is no checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import simserve
from simserve.hardware import list_hardware
from simserve.models import list_models

ROOT = Path(__file__).parents[1]
COMMAND = ["simulate", "--synthetic", "--num-prompts", "10", "--model", "opt-125m", "--hardware", "L4"]

Run = Callable[..., str]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    _run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs Python in a folder far from the checkout, where ``simserve`` is what the wheel brought."""
    site = tmp_path_factory.mktemp("site")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    _run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", site, wheel)
    environment = os.environ | {"PYTHONPATH": str(site)}
    return lambda *argv: _run(sys.executable, *argv, cwd=elsewhere, env=environment)


def _run(*argv: object, **options: object) -> str:
    done = subprocess.run([*map(str, argv)], capture_output=True, text=True, timeout=60, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_package_is_the_wheels(installed: Run) -> None:
    assert str(ROOT) not in installed("-c", "import simserve; print(simserve.__file__)")


def test_a_simulation_runs(installed: Run) -> None:
    assert "10 finished" in installed("-m", "simserve", *COMMAND)


def test_every_model_and_profile_is_there(installed: Run) -> None:
    code = (
        "from simserve.hardware import list_hardware, load_hardware\n"
        "from simserve.models import list_models, load_model\n"
        "print(len([*map(load_hardware, list_hardware())]), len([*map(load_model, list_models())]))"
    )
    assert installed("-c", code).split() == [str(len(list_hardware())), str(len(list_models()))]


def test_the_server_has_its_texts(installed: Run) -> None:
    code = (
        "from simserve.models import load_model; from simserve.workload import SyntheticText, load_tokenizer\n"
        "tokenizer = load_tokenizer(load_model('simserve/tiny-llama').path)\n"
        "print(len(SyntheticText(tokenizer).answer('key', 30).pieces))"
    )
    assert installed("-c", code).strip() == "30"


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    assert wheel.name == f"simserve-{simserve.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as files:
        names = files.namelist()
        about = f"simserve-{simserve.__version__}.dist-info"
        assert f"{about}/licenses/LICENSE" in names
        assert "simserve = simserve.cli.main:main" in files.read(f"{about}/entry_points.txt").decode()
    assert {name.split("/")[0] for name in names} == {"simserve", about}
