"""The command line as such: it answers at once, takes flags either way, and complains in one sentence."""

from __future__ import annotations

import argparse
import subprocess
import sys
from types import SimpleNamespace

import pytest

import simserve
from simserve.cli import main as cli
from simserve.cli.main import main
from simserve.errors import WorkloadError

SLOW_TO_IMPORT = (
    "numpy",
    "pandas",
    "pyarrow",
    "pydantic",
    "yaml",
    "simpy",
    "aiohttp",
    "tokenizers",
    "torch",
    "asyncio",
)


@pytest.fixture
def only_echo(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A command line whose one command, ``echo``, takes ``--num-words`` and ``--loud`` and does what ``run`` does."""

    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--num-words", type=int, default=1)
        parser.add_argument("--loud", choices=("a_b", "a-b"), help="either")

    command = SimpleNamespace(add_arguments=add_arguments, run=lambda args: 0)
    monkeypatch.setattr(cli, "COMMANDS", {"echo": cli.Command("tests.echo", "say it again")})
    monkeypatch.setitem(sys.modules, "tests.echo", command)
    return command


def complaint(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What ``argv`` is told on stderr: one line, nothing on stdout, exit code 2."""
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("simserve: ")
    assert captured.err.count("\n") == 1
    return captured.err.strip()


@pytest.mark.parametrize("argv", [["--help"], ["-h"], []])
def test_help_names_the_commands(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 0
    shown = capsys.readouterr().out
    assert "simulate" in shown
    assert "serve" in shown


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"simserve {simserve.__version__}\n"


@pytest.mark.parametrize(
    "argv", [["--help"], ["--version"], *([name, "--help"] for name in ("simulate", "serve", "bench", "smoke"))]
)
def test_help_answers_at_once_because_nothing_slow_is_imported(argv: list[str]) -> None:
    code = f"import sys; from simserve.cli.main import main; main({argv}); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(SLOW_TO_IMPORT) & set(done.stderr.split())


@pytest.mark.parametrize(
    "argv",
    [["--num-words", "3"], ["--num_words", "3"], ["--num-words=3"], ["--num_words=3"]],
)
def test_dashes_and_underscores_are_alike(argv: list[str], only_echo: SimpleNamespace) -> None:
    only_echo.run = lambda args: args.num_words
    assert main(["echo", *argv]) == 3


def test_what_follows_two_dashes_is_somebody_elses_command(only_echo: SimpleNamespace) -> None:
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("words", nargs="*")

    only_echo.add_arguments = add_arguments
    only_echo.run = lambda args: int(args.words == ["serve", "--max_len", "8", "x_y"])
    assert main(["echo", "--", "serve", "--max_len", "8", "x_y"]) == 1


@pytest.mark.parametrize("argv", [["--loud", "a_b"], ["--loud=a_b"]])
def test_values_keep_their_underscores(argv: list[str], only_echo: SimpleNamespace) -> None:
    only_echo.run = lambda args: 7 if args.loud == "a_b" else 0
    assert main(["echo", *argv]) == 7


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["ecko"], "there is no command 'ecko'; choose one of echo"),
        (["--num-words", "3"], "there is no command '--num-words'; choose one of echo"),
        (["echo", "--num-wrds", "3"], "simserve echo does not know --num-wrds; did you mean --num-words?"),
        (["echo", "--num-wrds=3"], "simserve echo does not know --num-wrds; did you mean --num-words?"),
        (["echo", "--num"], "simserve echo does not know --num"),
        (["echo", "hello"], "simserve echo does not know hello; see simserve echo --help"),
        (["echo", "--num-words"], "--num-words: expected one argument; see simserve echo --help"),
        (["echo", "--num-words", "x"], "--num-words: invalid int value: 'x'; see simserve echo --help"),
    ],
)
def test_bad_flags_are_refused_in_one_sentence(
    argv: list[str], sentence: str, only_echo: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert complaint(argv, capsys).startswith(f"simserve: {sentence}")


def test_errors_of_the_input_are_one_sentence(only_echo: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    def run(args: argparse.Namespace) -> int:
        raise WorkloadError("trace.csv, line 3: no number")

    only_echo.run = run
    assert complaint(["echo"], capsys) == "simserve: trace.csv, line 3: no number"


def test_errors_of_ours_keep_their_traceback(only_echo: SimpleNamespace) -> None:
    only_echo.run = lambda args: 1 // 0
    with pytest.raises(ZeroDivisionError):
        main(["echo"])


def test_ctrl_c_is_one_sentence(only_echo: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    def run(args: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    only_echo.run = run
    assert main(["echo"]) == 130
    assert capsys.readouterr().err == "simserve: interrupted before it was done\n"


def test_a_reader_that_has_gone_is_no_traceback() -> None:
    code = (
        "from simserve.cli import main; main._run = lambda argv: print('words') or 0; raise SystemExit(main.main([]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()

    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(timeout=30) == 1
