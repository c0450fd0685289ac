"""Runs of ``simserve simulate`` by their settings, for commands that do many of them."""

from __future__ import annotations

import argparse
from functools import lru_cache
from typing import NoReturn

from simserve.cli.options import number, tokens, whole_number
from simserve.cli.simulate import add_arguments, price, simulated
from simserve.errors import ConfigError
from simserve.metrics.result import Result
from simserve.sweep.facts import flat
from simserve.sweep.settings import Settings, arguments

OF_ONE_RUN = ("help", "json", "out", "bill", "trace_out", "trace_limit", "timeline")
"""Options of ``simulate`` that are about its output, not about what is simulated."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(message.removeprefix("argument "))


def simulate_settings(settings: Settings) -> Result:
    """Do the run that ``settings`` describe, as ``simserve simulate`` would, without a word.

    Raises :class:`simserve.errors.SimServeError` for what that would refuse.
    """
    return flat(simulated(parsed(settings)).result)


def parsed(settings: Settings) -> argparse.Namespace:
    """``settings`` as options of ``simserve simulate``; raises :class:`ConfigError` for one that it does not have."""
    for name in settings:
        if name not in setting_names():
            raise ConfigError(
                f"--{name.replace('_', '-')} is no option of simserve simulate that changes a run; leave it out"
            )
    return _parser().parse_args(arguments(settings))


@lru_cache
def setting_names() -> dict[str, bool]:
    """What a run can be told, by the names of options, and whether that is a number."""
    return {
        option.lstrip("-").replace("-", "_"): action.type in (number, whole_number, tokens, price)
        or action.metavar == "N|DISTRIBUTION"
        for action in _parser()._actions
        if action.dest not in OF_ONE_RUN
        for option in action.option_strings
        if option.startswith("--") and not option.startswith("--no-")
    }


@lru_cache
def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="simserve simulate", allow_abbrev=False)
    add_arguments(parser)
    return parser
