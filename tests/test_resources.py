"""The shipped files are found in a clone and in an installed wheel; as many files may be open as the machine allows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from simserve.errors import SimServeError
from simserve.resources import _find, data_dir


@pytest.mark.parametrize(("kind", "pattern"), [("models", "*/*/config.json"), ("hardware_profiles", "*.yaml")])
def test_this_checkout_has_models_and_profiles(kind: str, pattern: str) -> None:
    assert any(data_dir(kind).glob(pattern))


def test_a_clone_keeps_them_at_its_top(tmp_path: Path) -> None:
    package = _folder(tmp_path / "simserve")
    (tmp_path / "pyproject.toml").touch()
    top = _folder(tmp_path / "models")
    _folder(package / "data" / "models")

    assert _find(package, "models") == top


def test_a_wheel_keeps_them_inside_the_package(tmp_path: Path) -> None:
    package = _folder(tmp_path / "site-packages" / "simserve")
    _folder(tmp_path / "site-packages" / "models")  # another distribution's
    inside = _folder(package / "data" / "models")

    assert _find(package, "models") == inside


def test_a_broken_installation_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SimServeError, match="reinstall SimServe"):
        _find(tmp_path / "simserve", "hardware_profiles")


def _folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_as_many_files_may_be_open_as_the_machine_allows() -> None:
    script = (
        "import resource; from simserve.resources import allow_many_connections as allow\n"
        "_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))\n"
        "allow(); print(resource.getrlimit(resource.RLIMIT_NOFILE)[0] == hard)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
