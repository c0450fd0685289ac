"""A whole server from the text of a settings file, for tests that change a key and look at what it does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp

from server.conftest import Client
from simserve.server.models import pool_of
from simserve.server.run import listening
from simserve.server.settings import Settings, file_layer, load_settings

FAST = "engine: {time_scale: .inf}\nmodels: {default: facebook/opt-125m}\n"
"""A small model that answers at once."""


def settings(text: str = FAST) -> Settings:
    """What ``text`` says, read as ``simserve serve --config`` reads it."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(text)
        return load_settings([file_layer(file)])


@asynccontextmanager
async def serving(text: str = FAST, headers: dict[str, str] | None = None) -> AsyncIterator[Client]:
    """A client of a server that has the settings in ``text``; it sends ``headers`` with every request."""
    chosen = settings(text)
    async with (
        listening(pool_of(chosen), "127.0.0.1", 0, chosen) as url,
        aiohttp.ClientSession(url, headers=headers) as session,
    ):
        yield Client(session)
