"""The pool of all models that the settings make available."""

from __future__ import annotations

from simserve.errors import ConfigError
from simserve.server.models.available import available_models
from simserve.server.models.clusters import cluster_models
from simserve.server.models.pool import ModelPool, PoolLimits
from simserve.server.settings import Settings


def pool_of(settings: Settings) -> ModelPool:
    """A pool that is not started yet; raises :class:`simserve.errors.SimServeError` if a model cannot be served."""
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
