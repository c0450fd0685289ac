"""LoRA adapters, by vLLM's rules: a name of its own for a model, loaded and unloaded at run time.

An adapter is in the names, in the words of simulated answers, and in the prefix cache, which it shares with nobody.
It is in the timing of an engine with ``enable_lora``.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from simserve.engines.base import Engine, GenerationRequest, TokenEvent
from simserve.errors import ConfigError
from simserve.server.embeddings import SimulatedEmbedder
from simserve.server.errors import ApiError
from simserve.server.service import Service
from simserve.server.simulated_plans import SimulatedPlanner

CONFIG_FILE = "adapter_config.json"


class LoadAdapter(BaseModel):
    """Body of ``POST /v1/load_lora_adapter``; ``base_model_name`` is needed only where several models are served."""

    model_config = ConfigDict(extra="ignore")

    lora_name: str = ""
    lora_path: str = ""
    load_inplace: bool = False
    base_model_name: str | None = None


def module_in(text: str) -> LoadAdapter:
    """An adapter of ``--lora-modules``, ``name=path`` or JSON as in vLLM; raises :class:`ConfigError`."""
    name, equals, path = text.partition("=")
    if not text.lstrip().startswith("{"):
        if not (name and equals and path):
            raise ConfigError(f"models.lora_modules: '{text}' is no adapter; write name=path, or JSON with both")
        return LoadAdapter(lora_name=name, lora_path=path)
    try:
        given = json.loads(text)
        return LoadAdapter(
            lora_name=given["name"], lora_path=given["path"], base_model_name=given.get("base_model_name")
        )
    except (json.JSONDecodeError, KeyError, ValidationError):
        raise ConfigError(
            f'models.lora_modules: {text} is no adapter; write {{"name": ..., "path": ..., "base_model_name": ...}}'
        ) from None


class UnloadAdapter(BaseModel):
    """Body of ``POST /v1/unload_lora_adapter``."""

    model_config = ConfigDict(extra="ignore")

    lora_name: str = ""


@dataclass(frozen=True)
class Adapter:
    """An adapter that requests may name; ``base`` is the name of its model."""

    name: str
    path: str
    base: str
    created_s: int = field(default_factory=lambda: int(time.time()))
    number: int = 0
    """Of its kind alone: what is loaded again has another one, and comes from disk again."""

    def over(self, service: Service) -> Service:
        """The model as this adapter changes it."""
        salted = service.over(_AskingEngine(service.engine, self))
        planner, embedder = salted.planner, salted.embedder
        assert isinstance(planner, SimulatedPlanner), "only the simulated engine has adapters"
        assert isinstance(embedder, SimulatedEmbedder)
        return replace(
            salted,
            planner=planner.renamed(self.name),
            embedder=embedder.renamed(self.name),
            model_names=[self.name],
            model_root=self.path,
        )


class Adapters:
    """The adapters that are loaded, by name."""

    def __init__(self) -> None:
        self._by_name: dict[str, Adapter] = {}
        self._numbers = count(1)

    def add(self, request: LoadAdapter, base: str) -> Adapter:
        """Load an adapter of the model ``base``; raises :class:`ApiError` (400, or 404 if it is not in its folder)."""
        name = request.lora_name
        if not name or not request.lora_path:
            raise ApiError("Both 'lora_name' and 'lora_path' must be provided.")
        if name in self._by_name and not request.load_inplace:
            raise ApiError(
                f"The lora adapter '{name}' has already been loaded. If you want to load the adapter in place, set"
                " 'load_inplace' to True.",
                param="lora_name",
            )
        _check_there(name, request.lora_path)
        self._by_name[name] = Adapter(name, request.lora_path, base, number=next(self._numbers))
        return self._by_name[name]

    def remove(self, name: str) -> None:
        """Unload an adapter; requests that use it go on. Raises :class:`ApiError` (400 or 404)."""
        if not name:
            raise ApiError("'lora_name' needs to be provided to unload a LoRA adapter.", param="lora_name")
        if self._by_name.pop(name, None) is None:
            raise ApiError(f"The lora adapter '{name}' cannot be found.", status=404, param="lora_name")

    def get(self, name: str) -> Adapter | None:
        """The adapter of that name, if there is one."""
        return self._by_name.get(name)

    def all(self) -> list[Adapter]:
        """All adapters, in the order of their coming."""
        return list(self._by_name.values())


def _check_there(name: str, path: str) -> None:
    """A folder must hold an adapter. A name on the hub is taken as it is: no weights are needed to simulate."""
    folder = Path(path).expanduser()
    on_hub = path.count("/") == 1 and path[0] not in "./~" and not folder.exists()
    if not on_hub and not (folder / CONFIG_FILE).is_file():
        raise ApiError(
            f"Loading lora {name} failed: No adapter found for {path}; give a folder with an {CONFIG_FILE}.",
            status=404,
            param="lora_path",
        )


class _AskingEngine:
    """An engine whose requests ask for ``adapter``, and share the prefix cache with those who do alone."""

    def __init__(self, engine: Engine, adapter: Adapter) -> None:
        self._engine = engine
        self._adapter = adapter

    def submit(self, request: GenerationRequest) -> AsyncIterator[TokenEvent]:
        name, number = self._adapter.name, self._adapter.number
        return self._engine.submit(replace(request, cache_salt=name, adapter=name, adapter_number=number))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)
