"""What the README shows is what happens: its commands run, its output is compared, its lists are complete."""

from __future__ import annotations

import csv
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from simserve.scheduling import POLICIES
from simserve.workload.traces.formats import FORMATS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)

NOT_RUN = {
    "./run_openai_server.sh": "it installs, and serves until it is stopped",
    "make test": "it would run these very tests",
    "simserve serve": "it serves until it is stopped; the fixture below runs it",
    "simserve bench": "it needs a server on port 8000; tests/cli/test_bench.py runs the like",
    "simserve smoke": "it needs port 8000 to be free; tests/cli/test_smoke.py runs the like",
}
ENVIRONMENT = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def commands(language: str) -> list[str]:
    """The commands in blocks of ``language``, joined where a backslash continues them, without comments."""
    text = "".join(block for kind, block in BLOCKS if kind == language).replace("\\\n", " ")
    lines = (line.partition("   #")[0].strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith(tuple(NOT_RUN))]


def run(command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run ``command`` as a shell would; stdout and stderr together, as a terminal shows them."""
    return subprocess.run(
        ["bash", "-c", command],
        cwd=cwd, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Where the server of the README listens, on a free port, at the time scale of the README."""
    process = subprocess.Popen(
        [sys.executable, "-m", "simserve", "serve", "--host", "127.0.0.1", "--port", "0"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        listening = next(line for line in process.stdout if line.startswith("Listening on"))
        yield listening.split()[2]
    finally:
        process.terminate()
        process.stdout.close()
        process.wait(timeout=10)


@pytest.mark.parametrize("block", [block for language, block in BLOCKS if language == "console"])
def test_console_blocks_show_what_is_printed(block: str) -> None:
    command, _, shown = block.partition("\n")
    printed = [line.rstrip() for line in run(command.removeprefix("$ "), ROOT).stdout.splitlines()]
    assert printed == shown.splitlines(), "paste what the command prints now into README.md"


@pytest.mark.parametrize("command", [line for line in commands("bash") if not line.startswith("curl")])
def test_commands_work(command: str, tmp_path: Path) -> None:
    if "../shared" in command:
        if not (ROOT.parent / "shared").is_dir():
            pytest.skip("the recorded traces are not beside this checkout")
        command = command.replace("../shared", str(ROOT.parent / "shared"))
    done = run(command, tmp_path)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("command", [line for line in commands("bash") if line.startswith("curl")])
def test_curl_gets_answers(command: str, url: str, tmp_path: Path) -> None:
    done = run(
        command.replace("curl", "curl --silent --show-error --fail").replace("http://localhost:8000", url), tmp_path
    )
    assert done.returncode == 0, done.stdout
    assert ("data: [DONE]" in done.stdout) == ("stream" in command)


def test_the_openai_client_gets_a_story(url: str) -> None:
    (program,) = [block for language, block in BLOCKS if language == "python"]
    program = program.replace("http://localhost:8000", url)
    done = subprocess.run(
        [sys.executable, "-c", program], env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=True
    )
    assert len(done.stdout.split()) > 20


def test_nothing_is_left_out_of_the_lists() -> None:
    for policy in POLICIES:
        assert f"| `{policy}` |" in README
    for format in FORMATS.values():
        assert f"| {format.name} | {', '.join(f'`{name}`' for name in format.required)}" in README


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", README)
    assert targets
    for target in targets:
        assert (ROOT / target).exists(), target


def test_the_picture_shows_what_the_simulation_says() -> None:
    pictures = runpy.run_path(str(ROOT / "docs" / "images" / "make_pictures.py"))
    with pictures["LOAD_CSV"].open(encoding="utf-8") as file:
        drawn_ms = {
            row["hardware"]: [float(row[column]) for column in ("p99_ttft_ms", "low_ms", "high_ms")]
            for row in csv.DictReader(file)
            if row["requests_per_s"] == "8.0000"
        }
    for hardware in pictures["ACCELERATORS"]:
        now_ms = pictures["ttft_p99"](hardware, 8.0)[2:]
        assert now_ms == pytest.approx(drawn_ms[hardware], abs=0.01), "run docs/images/make_pictures.py again"
