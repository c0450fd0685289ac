"""One model in memory: its engine, what speaks for it, and the names it goes by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from simserve.engines.base import Engine
from simserve.server.embeddings import Embedder
from simserve.server.plans import Planner


@dataclass
class Service:
    """What answers for one model; answers carry the first of its names."""

    engine: Engine
    planner: Planner
    embedder: Embedder
    model_names: Sequence[str]
    model_root: str

    def over(self, engine: Engine) -> Service:
        """The same over another engine, which must do the same."""
        return replace(self, engine=engine, embedder=self.embedder.over(engine))

    @property
    def model(self) -> str:
        return self.model_names[0]
