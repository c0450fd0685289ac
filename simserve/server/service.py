"""One model in memory: its engine, what speaks for it, the names it goes by, and who counts its answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from simserve.engines.base import Engine
from simserve.server.embeddings import Embedder
from simserve.server.plans import Planner

OnAnswer = Callable[[int, Sequence[int]], None]
"""Is told when an HTTP request is answered: how many choices each prompt had, and how many tokens the longest of each
prompt's choices has."""


def _nobody_counts(choices: int, longest: Sequence[int]) -> None:
    pass


@dataclass(eq=False)
class Service:
    """What answers for one model; answers carry the first of its names."""

    engine: Engine
    planner: Planner
    embedder: Embedder
    model_names: Sequence[str]
    model_root: str
    answered: OnAnswer = _nobody_counts

    def over(self, engine: Engine) -> Service:
        """The same over another engine, which must do the same."""
        return replace(self, engine=engine, embedder=self.embedder.over(engine))

    @property
    def model(self) -> str:
        return self.model_names[0]
