"""A whole cluster on the wall clock: one engine to its clients, many to those who run it."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, cast

from simserve.engines.base import EngineStatus, GenerationRequest
from simserve.engines.handout import LiveRequest
from simserve.engines.live_replica import LiveReplica, labels_of, labels_of_all
from simserve.engines.paced import PacedEngine
from simserve.engines.reports import Ending, StepReport
from simserve.engines.step_reports import aborted, failed, finished, step_report
from simserve.engines.streams import TokenStream
from simserve.errors import EngineError, OverloadedError, ReplicaError
from simserve.scheduling import Request
from simserve.simulation import Run
from simserve.simulation.arrivals import Moment
from simserve.simulation.cluster import ClusterSpec, Group, LiveCluster, Member
from simserve.simulation.features.adapter_replica import AdapterReplica


class Order(NamedTuple):
    """Something that who runs the cluster wants done at ``time_s``; ``done`` says whether it could be."""

    time_s: float
    act: Callable[[], bool]
    done: asyncio.Future[bool]


class ClusterEngine(PacedEngine):
    """The cluster of ``spec``, of prepared ``groups`` that all serve one model; see :class:`PacedEngine`.

    A sequence is as long as the group of the shortest allows, so that any replica can go on with any request. At
    infinite speed time stands still while there are no requests: what fails or scales by itself does so among them.
    """

    def __init__(self, spec: ClusterSpec, groups: list[Group], time_scale: float) -> None:
        self._spec = spec
        self._cluster = cluster = LiveCluster(spec, groups, self)
        limits = [group.setup.limits for group in groups]
        super().__init__(
            cluster.env,
            time_scale,
            most_tokens=min(member.most_tokens for member in cluster.members),
            block_size=math.lcm(*(each.block_size for each in limits)),
            prefix_caching=any(each.prefix_caching for each in limits),
        )
        self._door = cluster
        self._peek = self._next_event_s
        self._max_model_len = min(each.max_model_len for each in limits)
        labels = {group.name: labels_of(group) for group in groups}
        self._has_adapters = any(group.setup.adapters is not None for group in groups)
        self._replicas = [
            LiveReplica(member, labels[member.group.name], self.clock, self._adapter_names)
            for member in cluster.members
        ]
        self._by_name = {replica.name: replica for replica in self._replicas}
        self._orders: deque[Order] = deque()
        self._late: dict[str, float] = {}
        """By request, where front ends take their time: when its last token so far will have been sent."""
        self._throttled = self._lost = self._retried = 0

    @property
    def max_model_len(self) -> int:
        return self._max_model_len

    @property
    def may_refuse(self) -> bool:
        """Whether a sequence that could be served may be refused all the same, which :meth:`submit` decides."""
        return True

    @property
    def replicas(self) -> Sequence[LiveReplica]:
        """See :class:`simserve.engines.controls.HasReplicas`."""
        return self._replicas

    def replica(self, name: str) -> LiveReplica | None:
        return self._by_name.get(name)

    def describe(self) -> dict[str, object]:
        """Labels that all replicas share, and ``groups`` with those of each; see :class:`RunDescription`."""
        cluster = self._cluster
        return labels_of_all(cluster.groups, cluster.spec.router.policy, self.clock.time_scale)

    def submit(self, request: GenerationRequest) -> TokenStream:
        """Queue a sequence now; see :class:`simserve.engines.base.Engine`.

        Raises :class:`OverloadedError` for one that the cluster file's limits keep out, :class:`ReplicaError` where no
        replica is left.
        """
        if self._failure is None:
            self._check_room(request)
        return super().submit(request)

    async def stop(self) -> None:
        await super().stop()
        while self._orders:
            order = self._orders.popleft()
            if not order.done.done():
                order.done.set_exception(EngineError("the server is shutting down"))

    def status(self) -> EngineStatus:
        """Sums over all replicas, and what stands before them in ``extra``; see :class:`EngineStatus`."""
        cluster, gateway, handover = self._cluster, self._cluster.gateway, self._cluster.handover
        each = [replica.status() for replica in self._replicas]
        coming = len(self._arrivals) + len(self._hashing)
        waiting = len(gateway.queue) + (handover.waiting_requests if handover else 0)
        sent = handover.requests_on_the_way if handover else 0
        unit_bytes = math.gcd(*(one.kv_block_bytes for one in each))
        there = [one for one, replica in zip(each, self._replicas, strict=True) if replica.has_engine]
        used = sum(one.kv_blocks_used for one in there)
        total = sum(one.kv_blocks_total for one in there)
        return EngineStatus(
            clock_s=self.clock.now_s(),
            waiting_requests=coming + waiting + sent + sum(one.waiting_requests for one in each),
            running_requests=sum(one.running_requests for one in each),
            completed_requests=self._completed,
            aborted_requests=self._aborted,
            steps=sum(one.steps for one in each),
            inflight_batches=sum(one.inflight_batches for one in each),
            kv_blocks_total=sum(one.kv_blocks_total * (one.kv_block_bytes // unit_bytes) for one in there),
            kv_blocks_used=sum(one.kv_blocks_used * (one.kv_block_bytes // unit_bytes) for one in there),
            kv_block_bytes=unit_bytes,
            extra={
                "kv_blocks": {"total": total, "used": used, "available": total - used},
                "preemptions": sum(replica.preemptions for replica in self._replicas),
                "gateway": {
                    "router": cluster.spec.router.policy,
                    "waiting_requests": coming + waiting,
                    "requests_on_a_link": sent,
                    "throttled_requests": self._throttled,
                    "failed_requests": self._lost,
                    "retries": self._retried,
                },
            },
            failure=self._failure,
        )

    def reset_prefix_cache(self) -> bool:
        """Of all replicas; False, and nothing is forgotten, while requests hold KV blocks of any."""
        members = self._cluster.members
        if any(member.scheduler.blocks.used_blocks for member in members):
            return False
        for member in members:
            member.scheduler.blocks.reset_prefix_cache()
            self._cluster.gateway.router.forget(member)
        return True

    def _adapter_replicas(self) -> Iterable[AdapterReplica]:
        engines = (replica.member.replica for replica in self._replicas if replica.has_engine)
        return (engine for engine in engines if isinstance(engine, AdapterReplica))

    # What who runs the cluster wants; see simserve.engines.controls.HasReplicas.

    async def kill(self, replica: LiveReplica, down_s: float | None) -> bool:
        return await self._done(lambda: self._cluster.kill(replica.member, down_s))

    async def revive(self, replica: LiveReplica) -> bool:
        return await self._done(lambda: self._cluster.revive(replica.member))

    async def drain(self, replica: LiveReplica) -> bool:
        return await self._done(lambda: self._cluster.drain(replica.member))

    # What the simulation tells; see simserve.simulation.cluster.live.Listener.

    def ran(self, member: Member, run: Run, finished: Sequence[Request]) -> None:
        """Have a step's tokens handed out, now or when the replica's front end has sent them."""
        replica = self._replicas[member.index]
        replica.preemptions += len(run.plan.preempted)
        report = step_report(run) if self._observers or replica.observers else None
        sampled, ended = cast(list[LiveRequest], run.plan.sampled), cast(list[LiveRequest], finished)
        sent_s = run.sent_s
        if not run.lag_s:
            self._send(replica, sampled, ended, sent_s, report)
            return
        for request in sampled:
            name = str(request.request_id)
            if name in self._live:
                self._late[name] = max(sent_s, self._late.get(name, 0.0))
        self._send_at(sent_s, replica, sampled, ended, report)

    def lost(self, request: Request, status: int, member: Member | None) -> None:
        """End a stream with what its client is to be told."""
        self._hand_out.work(math.inf)  # tokens that came before
        live = cast(LiveRequest, request)
        if self._live.pop(str(live.request_id), None) is None:
            return
        self._lost += 1
        self._retried += live.retries
        self._late.pop(str(live.request_id), None)
        live.stream.fail(ReplicaError(self._why_lost(live, member)))
        name = "" if member is None else member.name
        self._tell_ended(failed(live, self.clock.now_s(), name), member)

    # The simulation's side.

    def _send_at(
        self,
        sent_s: float,
        replica: LiveReplica,
        sampled: Sequence[LiveRequest],
        last: list[LiveRequest],
        report: StepReport | None,
    ) -> None:
        Moment(self._env, sent_s, lambda _: self._send(replica, sampled, last, sent_s, report))

    def _send(
        self,
        replica: LiveReplica,
        sampled: Sequence[LiveRequest],
        last: list[LiveRequest],
        sent_s: float,
        report: StepReport | None,
    ) -> None:
        """A step's tokens are due; those in ``last`` end with them, but for who was given up meanwhile.

        Another replica may have earlier tokens of theirs that it has not sent yet: then they end with these.
        """
        if self._late and last:
            later = [request for request in last if self._late.get(str(request.request_id), 0.0) > sent_s]
            for request in later:
                self._send_at(self._late[str(request.request_id)], replica, (), [request], None)
            last = [request for request in last if request not in later]
        ended = [request for request in last if self._live.pop(str(request.request_id), None) is not None]
        self._hand_out.add(sampled, ended, sent_s, self.clock.wall_s(sent_s))
        self._completed += len(ended)
        replica.completed += len(ended)
        if report is not None:
            for observer in (*self._observers, *replica.observers):
                observer.step_done(report)
        for request in ended:
            self._retried += request.retries
            self._late.pop(str(request.request_id), None)
            self._tell_ended(finished(request, replica.name), replica.member)

    def _admit_next(self) -> bool:
        """Let in what comes next before the next event, a request or an order; whether there was one."""
        if not self._orders:
            return super()._admit_next()
        order = self._orders[0]
        if self._arrivals and self._sleep.is_awake and self._arrivals[0].arrival_s <= order.time_s:
            return super()._admit_next()
        time_s = max(order.time_s, self._env.now)
        if time_s > self._peek():
            return False
        self._orders.popleft()
        if time_s > self._env.now:
            self._env.run(until=time_s)
        if not order.done.done():
            order.done.set_result(order.act())
        return True

    def _take_aborts(self) -> None:
        while self._aborts:
            request = self._aborts.popleft()
            member = self._cluster.last_member(request)
            name = "" if member is None else member.name
            self._aborted += 1
            self._retried += request.retries
            self._cluster.abort(request.request_id)
            self._late.pop(str(request.request_id), None)
            if member is not None:
                self._replicas[member.index].aborted += 1
            self._tell_ended(aborted(request, self.clock.now_s(), name), member)

    def _tell_ended(self, ending: Ending, member: Member | None) -> None:
        replica = () if member is None else self._replicas[member.index].observers
        for observer in (*self._observers, *replica):
            observer.ended(ending)

    def _is_quiet(self) -> bool:
        return self._cluster.is_quiet and not self._late

    def _next_event_s(self) -> float:
        """When the next event is due; never while time stands still."""
        stands = self.clock.time_scale == math.inf and not self._live and self._is_quiet()
        return math.inf if stands else self._env.peek()

    async def _done(self, act: Callable[[], bool]) -> bool:
        """Have ``act`` called at this point in simulated time; what it says."""
        if self._failure is not None:
            raise EngineError(self._failure)
        order = Order(self.clock.now_s(), act, asyncio.get_running_loop().create_future())
        self._orders.append(order)
        self._pacer.wake()
        return await order.done

    def _check_room(self, request: GenerationRequest) -> None:
        cluster = self._cluster
        if cluster.gateway.is_gone:
            raise ReplicaError("no replica is left that could serve this request")
        if not cluster.has_limits:
            return
        answer = request.max_tokens if request.output_tokens is None else request.output_tokens
        tokens = len(request.prompt_token_ids) + min(answer, request.max_tokens)
        limit = cluster.refusal(tokens, self._live.values(), len(self._arrivals) + len(self._hashing))
        if limit is not None:
            self._throttled += 1
            raise OverloadedError(f"the cluster has enough to do: its limit is {limit}; try again in a moment")

    def _why_lost(self, request: LiveRequest, member: Member | None) -> str:
        if self._cluster.gateway.is_gone or member is None:
            return "no replica is left that could serve this request"
        failed = f"replica {member.name}, which served this request, has failed"
        if self._spec.retry == "never":
            return f"{failed}, and this cluster retries nothing"
        if request.retries >= self._spec.max_retries:
            return f"{failed}, after {request.retries} retries; there are no more than {self._spec.max_retries}"
        return f"{failed}, and no other can hold the prompt with the answer so far"
