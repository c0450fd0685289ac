"""What may be done to the replicas of a cluster while it serves: kill one, revive it, drain it."""

from __future__ import annotations

from typing import Annotated

import orjson
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from simserve.engines.controls import HasReplicas
from simserve.engines.live_replica import LiveReplica
from simserve.server.errors import ApiError
from simserve.server.models import ModelPool
from simserve.server.protocol import parse
from simserve.server.same_origin import check_same_origin

NAME = r"{name:[^/]+/\d+(?:\.\d+)?}"


class KillReplica(BaseModel):
    """Body of ``POST /cluster/replicas/{name}/kill``, which may be left out: how many simulated seconds it is dead."""

    model_config = ConfigDict(extra="forbid")

    down_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


class ClusterRoutes:
    """``/cluster/replicas``; the names of replicas are unique over all models of the cluster file."""

    def __init__(self, models: ModelPool) -> None:
        self._models = models

    def table(self) -> list[web.AbstractRouteDef]:
        """The routes, for ``app.add_routes``."""
        return [
            web.get("/cluster/replicas", self.replicas),
            web.get(f"/cluster/replicas/{NAME}", self.replica),
            web.post(f"/cluster/replicas/{NAME}/kill", self.kill),
            web.post(f"/cluster/replicas/{NAME}/revive", self.revive),
            web.post(f"/cluster/replicas/{NAME}/drain", self.drain),
        ]

    async def replicas(self, request: web.Request) -> web.Response:
        """``GET /cluster/replicas``: every replica of the cluster, as `/status` has them"""
        return _json({"replicas": [replica.row() for engine in self._clusters() for replica in engine.replicas]})

    async def replica(self, request: web.Request) -> web.Response:
        """``GET /cluster/replicas/{name}``: one of them, such as `all/0`"""
        return _json(self._found(request)[1].row())

    async def kill(self, request: web.Request) -> web.Response:
        """``POST /cluster/replicas/{name}/kill``: have it fail: its requests go on elsewhere or end with an error"""
        check_same_origin(request)
        raw = await request.read()
        order = parse(raw, KillReplica) if raw else KillReplica()
        engine, replica = self._found(request)
        return _done(replica, await engine.kill(replica, order.down_s), "kill")

    async def revive(self, request: web.Request) -> web.Response:
        """``POST /cluster/replicas/{name}/revive``: have it ready again, at once"""
        check_same_origin(request)
        engine, replica = self._found(request)
        return _done(replica, await engine.revive(replica), "revive")

    async def drain(self, request: web.Request) -> web.Response:
        """``POST /cluster/replicas/{name}/drain``: no more requests for it; it stops when it has ended those it has"""
        check_same_origin(request)
        engine, replica = self._found(request)
        return _done(replica, await engine.drain(replica), "drain")

    def _clusters(self) -> list[HasReplicas]:
        """Raises :class:`ApiError` (404) if there is none."""
        engines = [telemetry.engine for telemetry in self._models.telemetry]
        clusters: list[HasReplicas] = [engine for engine in engines if isinstance(engine, HasReplicas)]
        if not clusters:
            raise ApiError("This server is no cluster; start it with --cluster or --replicas.", status=404)
        return clusters

    def _found(self, request: web.Request) -> tuple[HasReplicas, LiveReplica]:
        """The replica that the path names; raises :class:`ApiError` (404) if there is none."""
        name, clusters = request.match_info["name"], self._clusters()
        for engine in clusters:
            replica = engine.replica(name)
            if replica is not None:
                return engine, replica
        names = ", ".join(replica.name for engine in clusters for replica in engine.replicas[:MOST_NAMES])
        raise ApiError(f"There is no replica {name}; there are {names}.", status=404, param="name")


MOST_NAMES = 8
"""Of each model's replicas, in the sentence that says which there are."""


def _done(replica: LiveReplica, could: bool, what: str) -> web.Response:
    if not could:
        raise ApiError(f"Replica {replica.name} is {replica.state}: there is nothing to {what}.", status=409)
    return _json(replica.row())


def _json(body: dict[str, object]) -> web.Response:
    return web.Response(body=orjson.dumps(body), content_type="application/json")
