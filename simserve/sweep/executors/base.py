"""The seam between a sweep and what carries it out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from simserve.sweep.expand import Job
from simserve.sweep.jobs import Outcome
from simserve.sweep.settings import RunOnce


class Executor(Protocol):
    """Does jobs, in whatever order they come to an end."""

    def outcomes(self, run_once: RunOnce, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """The outcome of each job, as soon as it is there; closing the iterator stops what is under way.

        ``run_once`` is a function of a module, so that other processes find it by its name.
        """
        ...
