"""``simserve``: finds the command, reads its options, and turns every error into one sentence.

A command is a module with ``add_arguments(parser)`` and ``run(args) -> int``. Only the module of the command that was
asked for is imported, and what is slow to import it imports in ``run``: ``simserve --help`` has to answer at once.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from importlib import import_module
from typing import NamedTuple, NoReturn, Protocol, cast

from rich_argparse import RichHelpFormatter

from simserve import __version__
from simserve.errors import ConfigError, SimServeError

OK, OUTPUT_CLOSED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
"""Exit codes: done; the reader of our output has gone; an error of the input; Ctrl-C."""


class Command(NamedTuple):
    """Where a command lives and what it is for."""

    module: str
    help: str


COMMANDS = {
    "simulate": Command("simserve.cli.simulate", "serve a workload in simulated time and report its latencies"),
    "plan": Command("simserve.cli.plan", "which hardware, how many, which settings, and what it costs"),
    "sweep": Command("simserve.cli.sweep", "many runs: axes, or the highest load within an SLO, with a report"),
    "report": Command("simserve.cli.report", "draw the report of a sweep again"),
    "validate": Command("simserve.cli.validate", "hold predictions against what a real server or the torch engine did"),
    "calibrate": Command("simserve.cli.calibrate", "measure this machine and write its hardware profile"),
    "profiles": Command("simserve.cli.profiles", "list, show, plot and import hardware profiles"),
    "models": Command("simserve.cli.models", "list models and show their sizes and operators"),
    "keys": Command("simserve.cli.keys", "make, list and revoke keys for serve"),
    "bench": Command("simserve.cli.bench", "load any OpenAI-like server and report its latencies"),
    "bench serve": Command("simserve.cli.bench", "the same, as vllm bench serve is called"),
    "bench compare": Command("simserve.cli.bench_compare", "two results of bench side by side"),
    "bench multi-turn": Command("simserve.cli.multi_turn", "conversations, each turn with all before it"),
    "smoke": Command("simserve.cli.smoke", "see that a server answers; start and stop it if need be"),
    "serve": Command("simserve.cli.serve", "answer OpenAI's API with the timing of a model on chosen hardware"),
}

TOP_LEVEL_FLAGS = ("-h", "--help", "--version")


class CommandModule(Protocol):
    """What the module of a command defines."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace) -> int: ...


def main(argv: list[str] | None = None) -> int:
    """Run one command line (that of the process by default) and return its exit code."""
    try:
        code = _run(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return code
    except SimServeError as error:
        print(f"simserve: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("simserve: interrupted before it was done", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        _discard_output()
        return OUTPUT_CLOSED


def _run(argv: list[str]) -> int:
    argv = argv or ["--help"]
    if " ".join(argv[:2]) in COMMANDS:  # a command of two words
        argv = [" ".join(argv[:2]), *argv[2:]]
    name = argv[0]
    if name not in (*COMMANDS, *TOP_LEVEL_FLAGS):
        raise ConfigError(f"there is no command '{name}'; choose one of {', '.join(COMMANDS)}")
    command = cast(CommandModule, import_module(COMMANDS[name].module)) if name in COMMANDS else None
    try:
        args = _parse(argv, command)
    except SystemExit as done:  # argparse has printed the help or the version
        return int(done.code or OK)
    assert command is not None  # the top-level flags have all ended in SystemExit
    return command.run(args)


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one sentence, without the usage."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message.removeprefix('argument ')}; see {self.prog} --help")


def _parse(argv: list[str], command: CommandModule | None) -> argparse.Namespace:
    parser = _Parser(
        prog="simserve",
        description="An LLM server you can run without the hardware.",
        formatter_class=RichHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"simserve {__version__}")
    subparsers = parser.add_subparsers(metavar="command")
    chosen: argparse.ArgumentParser = parser
    for name, (_, purpose) in COMMANDS.items():
        subparser = subparsers.add_parser(
            name, help=purpose, description=_sentence(purpose), formatter_class=RichHelpFormatter, allow_abbrev=False
        )
        if command is not None and name == argv[0]:
            command.add_arguments(subparser)
            chosen = subparser
    args, unknown = parser.parse_known_args(_with_dashes(argv))
    if unknown:
        _refuse(unknown, chosen)
    return args


def _with_dashes(argv: list[str]) -> list[str]:
    """``--max_num_seqs=8`` as ``--max-num-seqs=8``; values stay as they are, and so does all that follows ``--``."""
    end = argv.index("--") if "--" in argv else len(argv)
    return [_flag_with_dashes(word) if word.startswith("--") else word for word in argv[:end]] + argv[end:]


def _flag_with_dashes(word: str) -> str:
    flag, equals, value = word.partition("=")
    return flag.replace("_", "-") + equals + value


def _refuse(unknown: list[str], parser: argparse.ArgumentParser) -> NoReturn:
    word = next((word for word in unknown if word.startswith("-")), unknown[0]).partition("=")[0]
    close = difflib.get_close_matches(word, parser._option_string_actions, n=1)
    hint = f"did you mean {close[0]}?" if close else f"see {parser.prog} --help"
    raise ConfigError(f"{parser.prog} does not know {word}; {hint}")


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _discard_output() -> None:
    """Point stdout at nothing, so that the interpreter's last flush does not fail on the closed pipe again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
