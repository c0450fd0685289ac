"""One model in memory: its engine, what speaks for it, the names it goes by, and what is kept of its work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from simserve.engines.base import Engine
from simserve.server.embeddings import Embedder
from simserve.server.plans import Planner
from simserve.server.telemetry import Telemetry


@dataclass(eq=False)
class Service:
    """What answers for one model; answers carry the first of its names.

    ``telemetry`` begins with the service and ends with it; an adapter has that of its model.
    """

    engine: Engine
    planner: Planner
    embedder: Embedder
    model_names: Sequence[str]
    model_root: str
    telemetry: Telemetry = field(default=None, repr=False)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.telemetry is None:
            self.telemetry = Telemetry(self.engine, self.model)

    @property
    def model(self) -> str:
        return self.model_names[0]
