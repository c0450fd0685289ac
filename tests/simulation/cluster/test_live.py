"""A cluster that lives: whatever comes, is given up, killed, revived and drained, and in whatever order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from simserve.config import EngineOptions
from simserve.metrics.records import FAILED
from simserve.scheduling import Request
from simserve.simulation.arrivals import Moment
from simserve.simulation.cluster import ClusterSpec, LiveCluster, Member, State, prepare_groups
from simserve.simulation.replica import Run
from simserve.simulation.sources import requests_of
from simserve.workload import Workload
from simulation.cluster.clusters import HARDWARE, MODEL, spec
from simulation.cluster.test_laws import clusters, workloads

OPTIONS = EngineOptions(max_num_seqs=16)

END_S = 60.0
"""Long after all is over: nothing here takes more than a few seconds."""


class Ears:
    """Counts tokens as they come out, and how requests end."""

    def __init__(self) -> None:
        self.tokens: Counter[object] = Counter()
        self.ended: Counter[object] = Counter()
        self.produced: dict[object, int] = {}
        self.lost_to: dict[object, tuple[int, str | None]] = {}

    def ran(self, member: Member, run: Run, finished: Sequence[Request]) -> None:
        self.tokens.update(request.request_id for request in run.plan.sampled)
        for request in finished:
            self.ended[request.request_id] += 1
            self.produced[request.request_id] = request.produced_tokens

    def lost(self, request: Request, status: int, member: Member | None) -> None:
        self.ended[request.request_id] += 1
        self.lost_to[request.request_id] = status, member and member.name


class Lived:
    """A live cluster that ``workload`` came to while ``orders`` of (time, what, which) were given."""

    def __init__(
        self,
        workload: Workload,
        cluster: ClusterSpec,
        orders: Sequence[tuple[float, str, int]],
        options: EngineOptions = OPTIONS,
    ) -> None:
        self.ears = Ears()
        groups = prepare_groups(cluster, MODEL, HARDWARE, options)
        self.cluster = LiveCluster(cluster, groups, self.ears)
        self.requests = list(requests_of(workload))
        self.aborted: set[object] = set()
        env = self.cluster.env
        for request in self.requests:
            Moment(env, request.arrival_s, lambda _, one=request: self.cluster.submit(one))
        for time_s, what, which in orders:
            Moment(env, time_s, lambda _, what=what, which=which: self._do(what, which))
        env.run(until=END_S)

    def _do(self, what: str, which: int) -> None:
        members = self.cluster.members
        member = members[which % len(members)]
        if what == "abort":
            request = self.requests[which % len(self.requests)]
            came = request.arrival_s < self.cluster.env.now
            if came and not self.ears.ended[request.request_id]:
                self.aborted.add(request.request_id)
            self.cluster.abort(request.request_id)
        elif what == "kill":
            could = member.state in (State.READY, State.DRAINING)
            assert self.cluster.kill(member, None if which % 2 else 0.1) == could
        elif what == "revive":
            could = member.state not in (State.READY, State.STARTING)
            assert self.cluster.revive(member) == could
        else:
            could = member.state is State.READY
            assert self.cluster.drain(member) == could


ALL_REVIVED = [(20.0, "revive", at) for at in range(40)]
"""So that nobody waits for ever for a replica that nobody starts again."""

NGRAM = '{"method": "ngram", "num_speculative_tokens": 3, "acceptance": 0.5}'

FEATURES = [
    EngineOptions(num_gpu_blocks=60, max_num_seqs=16, pipeline_parallel_size=2),
    EngineOptions(num_gpu_blocks=60, max_num_seqs=16, kv_offloading_size=1.0),
    EngineOptions(
        num_gpu_blocks=60,
        max_num_seqs=16,
        speculative_config={"method": "ngram", "num_speculative_tokens": 3, "acceptance": 0.6},
    ),
    EngineOptions(num_gpu_blocks=60, max_num_seqs=16, front_end="2:10:300"),
    EngineOptions(num_gpu_blocks=60, max_num_seqs=16, speculative_config=NGRAM),
]


def orders() -> st.SearchStrategy[list[tuple[float, str, int]]]:
    order = st.tuples(
        st.floats(0.0, 2.0), st.sampled_from(["abort", "abort", "kill", "revive", "drain"]), st.integers(0, 39)
    )
    return st.lists(order, max_size=25)


def check_nothing_is_left(cluster: LiveCluster) -> None:
    assert not cluster.gateway.queue
    assert cluster.loads.total_requests == cluster.loads.total_tokens == 0
    assert cluster.gateway.unfinished_tokens == 0
    for member in cluster.members:
        assert not member.held
        assert not member.scheduler.has_requests
        assert member.scheduler.blocks.used_blocks == 0
        assert member.state is not State.DRAINING
    if cluster.handover is not None:
        assert cluster.handover.waiting_requests == cluster.handover.requests_on_the_way == 0


@settings(max_examples=150, deadline=None)
@given(workloads(most_input=500), clusters(), orders())
def test_every_request_ends_once_with_all_its_tokens_or_is_lost(
    workload: Workload, cluster: ClusterSpec, given_orders: list[tuple[float, str, int]]
) -> None:
    check_laws(Lived(workload, cluster, [*given_orders, *ALL_REVIVED]))


@settings(max_examples=60, deadline=None)
@given(workloads(most_input=500), orders(), st.integers(1, 3), st.sampled_from(FEATURES))
def test_replicas_with_more_to_them_keep_the_same_laws(
    workload: Workload, given_orders: list[tuple[float, str, int]], replicas: int, options: EngineOptions
) -> None:
    cluster = spec(groups=[{"name": "all", "replicas": replicas}], max_retries=20)
    check_laws(Lived(workload, cluster, [*given_orders, *ALL_REVIVED], options))


def check_laws(lived: Lived) -> None:
    ears, aborted = lived.ears, lived.aborted
    assert ears.ended == {request.request_id: 1 for request in lived.requests if request.request_id not in aborted}
    for request in lived.requests:
        name = request.request_id
        if name in ears.produced:
            assert ears.tokens[name] == ears.produced[name] == request.output_tokens, "none twice, none missing"
        elif name not in aborted:
            assert ears.tokens[name] < request.output_tokens
    check_nothing_is_left(lived.cluster)
    assert lived.cluster.is_quiet


def test_a_request_may_be_given_up_wherever_it_is() -> None:
    """In the gateway's queue, being computed, waiting for a decode replica, on a link, and being answered."""
    apart: dict[str, Any] = {
        "groups": [{"name": "p", "role": "prefill"}, {"name": "d", "role": "decode"}],
        "links": [{"from": "p", "to": "d", "bandwidth_gb_per_s": 0.1}],
        "router": {"requests_per_replica": 2},
    }
    seen = set()
    for after_ms in range(0, 3000, 40):
        ears = Ears()
        groups = prepare_groups(spec(**apart), MODEL, HARDWARE, EngineOptions(num_gpu_blocks=40))
        cluster = LiveCluster(spec(**apart), groups, ears)
        requests = [Request(f"r{at}", 300, 200) for at in range(5)]
        for request in requests:
            cluster.submit(request)
        cluster.env.run(until=0.0005 + after_ms / 1000)
        where = places(cluster)
        seen |= set(where.values())
        for name in list(where):
            cluster.abort(name)
            cluster.abort(name)  # and again, as nothing
        cluster.env.run(until=END_S)
        check_nothing_is_left(cluster)
        assert set(ears.ended) == {request.request_id for request in requests} - set(where)
    assert seen == {"queue", "prefill", "waits", "link", "decode"}


def places(cluster: LiveCluster) -> dict[object, str]:
    """Where each request is that has not ended."""
    assert cluster.handover is not None
    where: dict[object, str] = {entry[2].request_id: "queue" for entry in cluster.gateway.queue._heap}
    where |= {name: "prefill" if member.index == 0 else "decode" for member in cluster.members for name in member.held}
    where |= dict.fromkeys(cluster.handover._coming, "link")
    return where | {request.request_id: "waits" for request, _, _ in cluster.handover._waiting}


def test_a_drained_member_ends_what_it_has_and_stops() -> None:
    cluster, ears = two_replicas()
    requests = [Request(f"r{at}", 100, 50) for at in range(4)]
    for request in requests:
        cluster.submit(request)
    cluster.env.run(until=0.05)
    member = cluster.members[0]
    assert cluster.drain(member)
    assert not cluster.drain(member), "it is no longer ready"
    cluster.submit(Request("later", 100, 50))
    assert "later" in cluster.members[1].held
    assert member.state is State.DRAINING
    cluster.env.run(until=END_S)
    assert member.state is State.STOPPED
    assert set(ears.ended.values()) == {1}
    assert cluster.revive(member)
    assert member.state is State.READY
    assert not cluster.revive(member)


def test_who_is_killed_comes_back_when_it_was_said_or_when_somebody_revives_it() -> None:
    cluster, _ = two_replicas()
    first, second = cluster.members
    assert cluster.kill(first, 5.0)
    assert not cluster.kill(first, 5.0), "it is dead"
    assert cluster.kill(second, None)
    cluster.env.run(until=1.0)
    assert (first.state, second.state) == (State.DOWN, State.STOPPED)
    assert cluster.revive(first)
    assert cluster.kill(first, 10.0)
    cluster.env.run(until=6.0)
    assert first.state is State.DOWN, "the return that was meant for the first death is not for the second"
    cluster.env.run(until=12.0)
    assert (first.state, second.state) == (State.READY, State.STOPPED)


def test_without_a_replica_that_is_left_requests_fail_at_once_and_say_who_had_them() -> None:
    cluster, ears = two_replicas()
    for at in range(4):
        cluster.submit(Request(f"r{at}", 100, 50))
    cluster.env.run(until=0.05)
    for member in cluster.members:
        cluster.kill(member, None)
    assert cluster.gateway.is_gone
    assert {status for status, _ in ears.lost_to.values()} == {FAILED}
    assert {name for _, name in ears.lost_to.values()} == {"all/1"}, "who had them last"
    check_nothing_is_left(cluster)


def test_decode_replicas_that_are_revived_are_used_again() -> None:
    apart: dict[str, Any] = {
        "groups": [{"name": "p", "role": "prefill"}, {"name": "d", "role": "decode"}, {"name": "m"}],
        "links": [{"from": "p", "to": "d", "bandwidth_gb_per_s": 10}],
    }
    ears = Ears()
    cluster = LiveCluster(spec(**apart), prepare_groups(spec(**apart), MODEL, HARDWARE, EngineOptions()), ears)
    prefill, decode, mixed = cluster.members
    cluster.kill(decode, None)
    cluster.submit(Request("a", 100, 20))
    assert "a" in mixed.held, "nobody could go on with what a prefill replica begins"
    cluster.env.run(until=5.0)
    cluster.revive(decode)
    cluster.kill(mixed, None)
    cluster.submit(Request("b", 100, 20))
    assert "b" in prefill.held
    cluster.env.run(until=10.0)
    assert ears.ended == {"a": 1, "b": 1}
    assert ears.tokens == {"a": 20, "b": 20}
    assert decode.steps == 19


def two_replicas() -> tuple[LiveCluster, Ears]:
    ears = Ears()
    both = spec(groups=[{"name": "all", "replicas": 2}])
    return LiveCluster(both, prepare_groups(both, MODEL, HARDWARE, EngineOptions()), ears), ears
