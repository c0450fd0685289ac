"""The pool of all models that the settings make available."""

from __future__ import annotations

from simserve.errors import ConfigError
from simserve.server.errors import ApiError
from simserve.server.models.adapters import module_in
from simserve.server.models.available import available_models
from simserve.server.models.clusters import cluster_models
from simserve.server.models.pool import ModelPool, PoolLimits
from simserve.server.settings import Settings


def pool_of(settings: Settings) -> ModelPool:
    """A pool that is not started yet; raises :class:`simserve.errors.SimServeError` if a model cannot be served."""
    pool = _pool(settings)
    for text in settings.models.lora_modules:
        module = module_in(text)
        try:
            adapter = pool.name_adapter(module)
        except ApiError as error:
            raise ConfigError(f"models.lora_modules: {module.lora_name}: {error}") from None
        if not next(slot for slot in pool.slots if slot.model.name == adapter.base).model.has_adapters:
            raise ConfigError(f"models.lora_modules: {adapter.base} has no adapters; give its engine enable_lora")
    return pool


def _pool(settings: Settings) -> ModelPool:
    if settings.cluster.on:
        models = cluster_models(settings)
        limits = PoolLimits(max_waiting_requests=settings.server.max_waiting_requests)
        return ModelPool(models, [model.name for model in models], limits)
    models = available_models(settings)
    names = {name for model in models for name in model.names}
    preload = [models[0].name] if settings.models.preload is None else settings.models.preload
    unknown = [name for name in preload if name not in names]
    if unknown:
        raise ConfigError(f"models.preload: there is no model {unknown[0]}; available are {', '.join(sorted(names))}")
    limits = PoolLimits(
        max_loaded=settings.models.max_loaded,
        unload_timeout_s=settings.models.unload_timeout,
        load_timeout_s=settings.models.load_timeout,
        max_waiting_requests=settings.server.max_waiting_requests,
    )
    return ModelPool(models, preload, limits)
