"""Many replicas behind one gateway: routing, failures, autoscaling. See docs/clusters.md."""

from __future__ import annotations

from simserve.simulation.cluster.groups import Group, prepare_groups
from simserve.simulation.cluster.live import LiveCluster
from simserve.simulation.cluster.member import Member, MemberObserver, State
from simserve.simulation.cluster.result import ClusterResult, MemberResult
from simserve.simulation.cluster.routers import ROUTERS, Pool, Router, router_named
from simserve.simulation.cluster.simulate import Cluster, Defaults, simulate_cluster
from simserve.simulation.cluster.spec import ClusterSpec, cluster_of, read_cluster

__all__ = [
    "ROUTERS", "Cluster", "ClusterResult", "ClusterSpec", "Defaults", "Group", "LiveCluster", "Member",
    "MemberObserver", "MemberResult", "Pool", "Router", "State", "cluster_of", "prepare_groups", "read_cluster",
    "router_named", "simulate_cluster",
]  # fmt: skip
