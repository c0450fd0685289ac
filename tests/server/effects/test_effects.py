"""Every key of the settings is honoured: changed, it shows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydantic import BaseModel

from server.effects import cluster, engine, processes, sections
from simserve.server.settings import AvailableModel, Settings
from simserve.server.settings.sections import KeySection

EFFECTS = {**cluster.EFFECTS, **engine.EFFECTS, **processes.EFFECTS, **sections.EFFECTS}
BELOW = {"auth.keys": ("auth.keys[]", KeySection), "models.available": ("models.available.<name>", AvailableModel)}
"""Where a key holds sections of its own."""


def keys_of(section: type[BaseModel], path: str) -> Iterator[str]:
    """Every key that ``section``, at ``path``, understands."""
    for name in section.model_fields:
        yield f"{path}.{name}"
        if f"{path}.{name}" in BELOW:
            below, kind = BELOW[f"{path}.{name}"]
            yield from keys_of(kind, below)


def test_every_key_has_an_effect_that_is_looked_at() -> None:
    sections_of_all = {name: field.annotation for name, field in Settings.model_fields.items()}
    known = {key for name, section in sections_of_all.items() for key in keys_of(section, name)}
    assert set(EFFECTS) == known


@pytest.mark.parametrize("key", EFFECTS)
async def test_what_a_key_does_shows(key: str) -> None:
    await EFFECTS[key].check()
