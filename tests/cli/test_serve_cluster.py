"""``simserve serve`` with a cluster, as people start it."""

from __future__ import annotations

import json
import signal
import subprocess
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cli.test_serve import COMMAND, running

EXAMPLE = Path(__file__).parents[2] / "examples/cluster.yaml"
OPT = ("--model", "facebook/opt-125m")


def test_replicas_of_one_kind_are_an_option() -> None:
    with running(*OPT, "--replicas", "3", "--router", "least-requests", "--router-staleness", "50ms") as server:
        assert "Cluster    3 replicas, router least-requests, time scale inf" in server.log
        assert "Group      all: 3 x A100-SXM4-80GB (calibrated: " in server.log
        for _ in range(3):
            server.complete(max_tokens=3)
        assert len(server.get("/status")["replicas"]) == 3
        kill = urllib.request.Request(f"{server.url}/cluster/replicas/all/1/kill", method="POST")
        with urllib.request.urlopen(kill, timeout=30) as response:
            assert json.load(response)["state"] == "stopped"
        server.complete(max_tokens=3)
        assert server.stop(signal.SIGTERM) == 0


def test_workers_share_one_cluster() -> None:
    with running(*OPT, "--replicas", "2", "--workers", "2") as server:
        for _ in range(4):
            server.complete(max_tokens=3, user="me")
        replicas = server.get("/cluster/replicas")["replicas"]
        assert [row["completed_requests"] for row in replicas] == [2, 2]
        assert server.stop(signal.SIGTERM) == 0


def test_one_too_many_is_429_from_a_worker_too(tmp_path: Path) -> None:
    """Also for a stream, whose status is said before its first token."""
    file = tmp_path / "cluster.yaml"
    file.write_text("groups: [{name: all}]\nrouter: {max_requests: 1}\n")
    slow = ("--workers", "2", "--time-scale", "0.02")
    with running(*OPT, "--cluster", str(file), *slow) as server, ThreadPoolExecutor() as pool:
        first = pool.submit(server.complete, max_tokens=1000)
        while server.get("/status")["running_requests"] == 0:
            assert not first.done()
        for stream in (True, False):
            with pytest.raises(urllib.error.HTTPError) as refused:
                server.complete(max_tokens=3, stream=stream)
            assert refused.value.code == 429
            assert refused.value.headers["Retry-After"] == "1"
            refused.value.close()
        kill = urllib.request.Request(f"{server.url}/cluster/replicas/all/0/kill", method="POST")
        urllib.request.urlopen(kill, timeout=30).close()
        lost = first.exception(timeout=30)
        assert isinstance(lost, urllib.error.HTTPError)
        assert lost.code == 503
        lost.close()
        assert server.stop(signal.SIGTERM) == 0


def test_the_example_that_shows_every_key_can_be_served() -> None:
    with running("--cluster", str(EXAMPLE)) as server:
        assert "Cluster    " in server.log
        server.complete(max_tokens=3)
        assert server.stop(signal.SIGTERM) == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--cluster", str(EXAMPLE), "--replicas", "2"], "--replicas contradicts the cluster file"),
        (["--cluster", "none.yaml"], "cannot read the cluster file none.yaml"),
        (["--replicas", "2", "--engine", "torch"], "--engine is torch, and a cluster is simulated"),
        (["--replicas", "2", "--preload", "a"], "--preload is not for a cluster"),
        (["--replicas", "0"], "--replicas: input should be greater than or equal to 1"),
        (["--router", "best"], "router.policy: unknown router 'best'"),
        (["--replicas", "2", "--router-staleness", "soon"], "--router-staleness: it must be a duration"),
    ],
)
def test_what_contradicts_itself_is_one_sentence_and_exit_code_2(options: list[str], says: str) -> None:
    done = subprocess.run([*COMMAND, *options], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
