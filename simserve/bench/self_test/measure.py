"""Ask a server of known timing at the load about to be used; what comes out wrong is this machine's own error."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context

import numpy as np

from simserve.bench.load.run import LoadResult, OnProgress, run_jobs
from simserve.bench.load.schedule import Shape
from simserve.bench.options import BenchOptions, Questions, Target
from simserve.bench.plan import Plan, make_jobs, make_plan
from simserve.bench.self_test.log import ServerLog, read_log
from simserve.bench.self_test.server import MODEL, Timing, serve_fixed_timing
from simserve.bench.tokens import TokenizerOptions
from simserve.errors import ServerError

SECONDS = 5.0
ROUNDS = 2
"""How long a rate is tested, and how often each place of a closed loop asks."""

LEAST_REQUESTS = 20
START_S = 30.0


@dataclass(frozen=True)
class SelfTest:
    """What this client measured too much, in seconds, over ``requests`` answers of ``timing``.

    The truth is the server's own log: from a request's arrival there to the sending of a token. ``stamp_*`` is from
    that sending to the client's stamp. ``rate`` is the part of the ideal throughput (or of the offered rate) that was
    reached, ``cpu_s_per_token`` the client's. ``server_first_s`` and ``server_mean_s`` are by how much the test server
    was late for ``timing``, with first tokens and with all; that is in no error here.
    """

    requests: int
    timing: Timing
    ttft_mean_s: float
    ttft_p99_s: float
    itl_mean_s: float
    itl_p99_s: float
    e2el_mean_s: float
    stamp_mean_s: float
    stamp_p99_s: float
    lag_p99_s: float
    rate: float
    cpu_s_per_token: float
    server_first_s: float
    server_mean_s: float

    def as_object(self) -> dict[str, object]:
        """Ready for JSON; the errors are those of what the client reports, less the truth."""
        return asdict(self)

    def sentence(self) -> str:
        """The result in one line."""
        return (
            f"self-test, {self.requests:,} answers of known timing: TTFT {self.ttft_mean_s * 1e3:+.2f} ms"
            f" (p99 {self.ttft_p99_s * 1e3:+.2f}), ITL {self.itl_mean_s * 1e3:+.3f} ms, E2EL"
            f" {self.e2el_mean_s * 1e3:+.2f} ms, {self.rate:.1%} of the ideal rate,"
            f" {self.cpu_s_per_token * 1e6:.1f} us CPU per token; the test server itself was"
            f" {self.server_first_s * 1e3:.2f} ms late with first tokens"
        )


def measure_own_error(
    shape: Shape, processes: int, count: int, rate: float, on_progress: OnProgress, timing: Timing | None = None
) -> SelfTest:
    """Test the client at ``shape``: its concurrency, or ``rate`` requests per second where arrivals are given.

    ``count`` is how many requests the real run has; as many are sent at once here if it has no limit.
    """
    timing = timing or Timing()
    with fixed_timing_server(timing) as url:
        plan = _plan(url, shape, processes, count, rate)
        load = run_jobs(make_jobs(plan), on_progress)
        return _compare(plan, load, timing, read_log(url))


@contextmanager
def fixed_timing_server(timing: Timing) -> Iterator[str]:
    """A test server in a process of its own; yields its address."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=serve_fixed_timing, args=(timing, theirs), daemon=True)
    child.start()
    theirs.close()
    try:
        if not ours.poll(START_S):
            raise ServerError(f"the test server did not start within {START_S:g} s")
        yield f"http://127.0.0.1:{ours.recv()}"
    except EOFError:
        raise ServerError("the test server died at its start; its last words are above") from None
    finally:
        ours.close()  # which ends it
        child.join(timeout=5)
        if child.is_alive():
            child.kill()
            child.join()


def _plan(url: str, shape: Shape, processes: int, count: int, rate: float) -> Plan:
    if shape.is_closed_loop:
        places = min(shape.max_concurrency or count, count)
        test = Shape(max_concurrency=places, stagger_s=min(shape.stagger_s, SECONDS))
        requests = ROUNDS * places
    else:
        test = Shape(request_rate=rate, burstiness=shape.burstiness)
        requests = max(round(rate * SECONDS), LEAST_REQUESTS)
        places = requests
    return make_plan(
        BenchOptions(
            target=Target(url=url, backend="openai-chat", model=MODEL),
            questions=Questions(count=requests, settings={"random_input_len": 64}),
            shape=test,
            tokenizer=TokenizerOptions(skip=True),
            processes=min(processes, places),
        )
    )


def _compare(plan: Plan, load: LoadResult, timing: Timing, log: ServerLog) -> SelfTest:
    ok = [one for one in load.outcomes if one.ok]
    if len(ok) < len(load.outcomes):
        failed = next(one for one in load.outcomes if not one.ok)
        raise ServerError(f"the self-test itself failed ({failed.failure}); this machine cannot carry that load")
    seen = [np.asarray(one.token_times_s) for one in ok]
    sent = [log.rows[one.request_id] for one in ok]
    # Both in one order, request by request: what the client has too much, and by how much each stamp came later.
    ttft = np.array([one.ttft_s - (row[1] - row[0]) for one, row in zip(ok, sent, strict=True)])
    e2el = np.array([one.e2el_s - (row[-1] - row[0]) for one, row in zip(ok, sent, strict=True)])
    stamps = [times - row[1:] for times, row in zip(seen, sent, strict=True)]
    itl = np.concatenate([np.diff(stamp) for stamp in stamps])
    stamp = np.concatenate(stamps)
    lateness = log.lateness_s(timing)
    lag = np.array([one.sent_s - one.ready_s for one in ok])
    tokens = len(ok) * timing.tokens
    return SelfTest(
        requests=len(ok),
        timing=timing,
        ttft_mean_s=float(ttft.mean()),
        ttft_p99_s=float(np.percentile(ttft, 99)),
        itl_mean_s=float(itl.mean()),
        itl_p99_s=float(np.percentile(itl, 99)),
        e2el_mean_s=float(e2el.mean()),
        stamp_mean_s=float(stamp.mean()),
        stamp_p99_s=float(np.percentile(stamp, 99)),
        lag_p99_s=float(np.percentile(lag, 99)),
        rate=_rate(plan, load, timing),
        cpu_s_per_token=sum(one.cpu_s for one in load.health) / tokens,
        server_first_s=float(lateness[:, 0].mean()),
        server_mean_s=float(lateness.mean()),
    )


def _rate(plan: Plan, load: LoadResult, timing: Timing) -> float:
    """What was reached of what could be: rounds of a closed loop without a pause, or a schedule kept."""
    shape, end_s = plan.shape, max(one.end_s for one in load.outcomes) - load.start_s
    if shape.is_closed_loop:
        rounds = math.ceil(len(load.outcomes) / (shape.max_concurrency or len(load.outcomes)))
        return (rounds * timing.e2el_s + shape.stagger_s) / end_s
    return (float(plan.schedule.due_s[-1]) + timing.e2el_s) / end_s
