"""Clusters for tests: a small model on a real device, few KV blocks, and what became of every request."""

from __future__ import annotations

from collections import Counter
from typing import Any

from simserve.config import EngineOptions
from simserve.hardware import load_hardware
from simserve.metrics.records import Records
from simserve.models import load_model
from simserve.simulation import OpenLoop
from simserve.simulation.cluster import Cluster, ClusterResult, ClusterSpec, cluster_of
from simserve.simulation.cluster.groups import prepare_groups
from simserve.simulation.cluster.result import result_of
from simserve.workload import Workload

MODEL, HARDWARE = load_model("meta-llama/Llama-3.1-8B-Instruct"), load_hardware("A100")
OPTIONS = EngineOptions(num_gpu_blocks=200, max_num_seqs=16, max_num_batched_tokens=256)


def spec(**fields: Any) -> ClusterSpec:
    """A cluster of one group ``all`` of one replica, unless ``fields`` say otherwise."""
    return cluster_of({"groups": [{"name": "all"}], **fields}, "test")


class Watched(OpenLoop):
    """A workload that counts how often each of its requests ended."""

    def __init__(self, workload: Workload) -> None:
        super().__init__(workload)
        self.ends: Counter[Any] = Counter()

    def finished(self, requests: Any) -> None:
        self.ends.update(request.request_id for request in requests)


class Ran:
    """A run whose parts can be looked at."""

    def __init__(self, workload: Workload, cluster: ClusterSpec, options: EngineOptions = OPTIONS) -> None:
        self.source = Watched(workload)
        self.cluster = Cluster(cluster, prepare_groups(cluster, MODEL, HARDWARE, options), self.source, None)
        self.cluster.run()
        self.result: ClusterResult = result_of(self.cluster, workload.name)

    @property
    def records(self) -> Records:
        return self.result.records
