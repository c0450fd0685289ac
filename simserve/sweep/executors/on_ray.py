"""Work on a Ray cluster: more machines than one, each with SimServe installed."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from simserve.errors import ConfigError, EngineError
from simserve.sweep.executors.base import Done, Item
from simserve.sweep.executors.local import do_all

AHEAD = 2
"""Batches under way for each core of the cluster."""

CONNECT_WITHIN_S = 10.0

LOOK_EVERY_S = 5.0
"""How often the number of cores is asked for: nodes come and go."""


class OnRay:
    """A Ray cluster at ``address`` (``host:port``, or ``auto`` for the one of this machine); None starts one here.

    What a lost node was doing is done again on another one. Raises :class:`ConfigError` if Ray is not installed.
    """

    def __init__(self, address: str | None = None) -> None:
        try:
            import ray
        except ImportError:
            raise ConfigError("--executor ray needs Ray: pip install 'simserve[ray]'") from None
        self._ray: Any = ray
        self._address = address

    def map(self, do: Callable[[Item], Done], items: Sequence[Item], batch: int = 1) -> Iterator[Done]:
        """See :class:`~simserve.sweep.executors.base.Executor`; raises :class:`ConfigError` if there is no cluster at
        the address, :class:`EngineError` if it is lost.
        """
        if not items:
            return
        self._connect()
        try:
            yield from self._as_they_end(do, [items[at : at + batch] for at in range(0, len(items), batch)])
        except self._ray.exceptions.RayError as error:
            raise EngineError(
                f"the Ray cluster cannot go on: {str(error).splitlines()[0]}; it is all kept, go on with --resume"
            ) from None
        finally:
            self._ray.shutdown()

    def _connect(self) -> None:
        """Ray itself would try for minutes to reach a host that is not there."""
        try:
            host, colon, port = (self._address or "").rpartition(":")
            if colon and "/" not in host:
                socket.create_connection((host, int(port)), CONNECT_WITHIN_S).close()
            self._ray.init(
                address=self._address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False
                if self._address is None else None,
            )  # fmt: skip
        except (OSError, ValueError, RuntimeError) as error:
            raise ConfigError(f"there is no Ray cluster at {self._address}: {str(error).splitlines()[0]}") from None

    def _as_they_end(self, do: Callable[[Item], Done], batches: Sequence[Sequence[Item]]) -> Iterator[Done]:
        remote = self._ray.remote(num_cpus=1, max_retries=-1)(do_all)
        shared = self._ray.put(do)
        under_way: list[Any] = []
        left = iter(batches)
        more = True
        while under_way or more:
            most = AHEAD * max(1, int(self._ray.cluster_resources().get("CPU", 1)))
            while more and len(under_way) < most:
                batch = next(left, None)
                more = batch is not None
                if batch is not None:
                    under_way.append(remote.remote(shared, batch))
            ready, under_way = self._ray.wait(under_way, timeout=LOOK_EVERY_S)
            for reference in ready:
                yield from self._ray.get(reference)
