"""A sweep on a real Ray cluster of two nodes, one of which is lost half-way."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from simserve.errors import ConfigError
from simserve.sweep.executors import InThisProcess
from simserve.sweep.expand import jobs_of
from simserve.sweep.jobs import Outcome
from simserve.sweep.run import run_sweep
from simserve.sweep.spec import spec_from
from simserve.sweep.store import Store
from sweep.runs import fake

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'simserve[ray]'")

from simserve.sweep.executors.on_ray import OnRay  # noqa: E402

JOBS = jobs_of(spec_from({"axes": {"max_num_seqs": {"from": 1, "to": 60, "step": 1}}, "base": {"speed": 0.1}}, "here"))
pytestmark = pytest.mark.filterwarnings("default")


@contextmanager
def node(*options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Ray node as a process group of its own; all of it ends with the context."""
    script = str(Path(sys.executable).with_name("ray"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["tests", *sys.path]), "RAY_USAGE_STATS_ENABLED": "0"}
    process = subprocess.Popen(
        [script, "start", "--num-cpus=1", "--block", *options],
        env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process
    finally:
        kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """As when the power goes."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for_nodes(address: str, count: int) -> None:
    ends_s = time.monotonic() + 90
    while time.monotonic() < ends_s:
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
            alive = sum(one["Alive"] for one in ray.nodes())
        except (ConnectionError, RuntimeError, ValueError):
            alive = 0
        finally:
            ray.shutdown()
        if alive >= count:
            return
        time.sleep(0.5)
    pytest.fail(f"{count} nodes of Ray did not come up at {address}")


def test_a_lost_node_costs_no_row_and_doubles_none(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"127.0.0.1:{port}"
    with (
        node("--head", f"--port={port}", "--node-ip-address=127.0.0.1", "--include-dashboard=false"),
        node(f"--address={address}", "--node-ip-address=127.0.0.2") as second,
    ):
        wait_for_nodes(address, 2)

        def lose_a_node(done: int, total: int, outcome: Outcome | None) -> None:
            if done == total // 2:
                kill(second)

        with Store(tmp_path / "ray") as store:
            there = run_sweep(JOBS, fake, OnRay(address), store, lose_a_node)
    with Store(tmp_path / "here") as store:
        here = run_sweep(JOBS, fake, InThisProcess(), store, lambda *_: None)
    assert [one.key for one in there.outcomes] == [job.key for job in JOBS]
    assert [(one.result, one.error) for one in there.outcomes] == [(one.result, one.error) for one in here.outcomes]


def test_a_cluster_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no Ray cluster at 127\.0\.0\.1:1: "):
        next(OnRay("127.0.0.1:1").map(fake, [{}]))
