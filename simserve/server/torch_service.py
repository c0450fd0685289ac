"""All that it takes to serve one real model: the torch engine, its tokenizer, its chat template and its embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Protocol, cast

import numpy as np

from simserve.config import EngineOptions
from simserve.engines.base import Engine
from simserve.errors import ConfigError, ModelError
from simserve.models import ModelSpec
from simserve.server.chat_template import load_chat_template
from simserve.server.embeddings import Embedded, Vector
from simserve.server.service import Service
from simserve.server.torch_plans import TorchPlanner
from simserve.workload import load_tokenizer

NEEDED = ("torch", "safetensors", "jinja2")

ONLY_SIMULATED = (
    "quantization", "kv_cache_dtype", "count_graph_memory", "front_end", "api_server_count", "kv_offloading_size",
    "speculative_config", "pipeline_parallel_size", "enable_lora",
)  # fmt: skip
"""Options that the torch engine has nothing for; it is eager whatever ``enforce_eager`` says."""

SINGLE_THREAD_BYTES = 16 * 2**20
"""Weights of less than this fit into a core's cache: a second thread would wait longer than it computes."""


def torch_service(
    model: ModelSpec,
    options: EngineOptions,
    device: str | None = None,
    model_names: Sequence[str] = (),
    threads: int | None = None,
) -> Service:
    """A service that runs ``model``, whose folder has its weights and tokenizer; blocks until they are loaded.

    ``device`` is torch's name of one, by default a GPU if there is one; ``model_names`` as for the simulated engine;
    ``threads`` is how many torch computes with on a CPU, by default what torch chooses, and one for tiny models.
    Raises :class:`ConfigError` where torch is missing, and :class:`simserve.errors.SimServeError` for a model that
    cannot be read, does not fit, or for options that the torch engine cannot honour.
    """
    check_torch(model, options)
    from simserve.engines.torch import TorchEngine, default_device

    if threads is None and model.weight_bytes < SINGLE_THREAD_BYTES:
        threads = 1
    engine = TorchEngine.load(model, device or default_device(), options=options, threads=threads)
    return torch_over(model, engine, model_names)


class RealEngine(Engine, Protocol):
    """A torch engine, in this process or in another one: an engine that computes what its answers say."""

    @property
    def generation_defaults(self) -> Mapping[str, float]:
        """Sampling parameters that the model's makers recommend, by the names of ``SamplingParams``."""
        ...

    async def embed(self, prompts: Sequence[Sequence[int]], pooling: str = "last") -> list[list[float]]:
        """A vector for each prompt."""
        ...


def torch_over(model: ModelSpec, engine: RealEngine, model_names: Sequence[str] = ()) -> Service:
    """The same for an engine that is there already; needs no torch itself."""
    planner = TorchPlanner(
        load_tokenizer(model.path),
        None if model.path is None else load_chat_template(model.path),
        max_model_len=engine.max_model_len,
        vocab_size=model.vocab_size,
        defaults=engine.generation_defaults,
    )
    embedder = TorchEmbedder(engine, model.hidden_size)
    return Service(engine, planner, embedder, list(model_names) or [model.name], model.name)


class TorchEmbedder:
    """Mean of the last layer's hidden states over a text's tokens; see :class:`simserve.server.embeddings.Embedder`."""

    def __init__(self, engine: RealEngine, hidden_size: int) -> None:
        self._engine = engine
        self.dimensions = hidden_size

    def over(self, engine: Engine) -> TorchEmbedder:
        return TorchEmbedder(cast(RealEngine, engine), self.dimensions)

    async def embed(self, prompts: Sequence[Sequence[int]], request_id: str) -> Embedded:
        return Embedded(await self._vectors(prompts))

    async def scores(self, pairs: Sequence[tuple[list[int], list[int]]], request_id: str) -> Embedded:
        """The cosine of both embeddings."""
        vectors = await self._vectors([tokens for pair in pairs for tokens in pair])
        lengths = [float(np.linalg.norm(vector)) or 1.0 for vector in vectors]
        products = [float(vectors[at] @ vectors[at + 1]) for at in range(0, len(vectors), 2)]
        return Embedded([product / (lengths[2 * at] * lengths[2 * at + 1]) for at, product in enumerate(products)])

    async def _vectors(self, prompts: Sequence[Sequence[int]]) -> list[Vector]:
        vectors = await self._engine.embed(prompts, pooling="mean")
        return [np.array(vector, dtype=np.float32) for vector in vectors]


def check_torch(model: ModelSpec, options: EngineOptions) -> None:
    """Raise what :func:`torch_service` would for a model, or options, that the torch engine cannot have."""
    _check_installed()
    _check_options(options)
    _check_tokenizer(model)


def _check_installed() -> None:
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ConfigError(f"--engine torch needs {' and '.join(missing)}: pip install simserve[torch]")


def _check_options(options: EngineOptions) -> None:
    plain = EngineOptions()
    given = [name for name in ONLY_SIMULATED if getattr(options, name) != getattr(plain, name)]
    if given:
        raise ConfigError(f"--{given[0].replace('_', '-')} can be simulated and not run; leave it out")


def _check_tokenizer(model: ModelSpec) -> None:
    if model.path is None or not (model.path / "tokenizer.json").is_file():
        raise ModelError(
            f"{model.name} has no tokenizer.json beside its config.json: --engine torch runs a model with its own"
            " weights and tokenizer, such as simserve/tiny-chat or a folder downloaded from Hugging Face"
        )
