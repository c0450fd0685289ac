"""The section of the settings that puts a cluster in the place of one engine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from simserve.server.settings.quantities import SecondsFrom0
from simserve.server.settings.section import Section, contradiction, setting


class ClusterSection(Section):
    """Many replicas behind one gateway; see [clusters.md](clusters.md)."""

    file: Path | None = setting(None, "a cluster file: groups of replicas, router, failures, autoscalers")
    replicas: Annotated[int, Field(ge=1)] | None = setting(None, "as many equal replicas, where there is no file")
    router: str | None = setting(None, "who gets a request, by name or as file.py:Class (the file's, else round-robin)")
    router_staleness: SecondsFrom0 | None = setting(None, "how old loads are that the router sees (the file's, or 0)")

    @model_validator(mode="after")
    def _keys_agree(self) -> ClusterSection:
        if self.file is not None and self.replicas is not None:
            raise contradiction("replicas contradicts the cluster file, which says how many there are; leave one out")
        return self

    @property
    def on(self) -> bool:
        """Whether there is a cluster at all."""
        return any(value is not None for value in (self.file, self.replicas, self.router, self.router_staleness))
