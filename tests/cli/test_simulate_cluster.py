"""``simserve simulate`` on a cluster."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from simserve.cli.cluster import duration_s
from simserve.cli.main import main

WORK = ["--synthetic", "--num-prompts", "40", "--request-rate", "50", "--input-len", "64", "--output-len", "8"]
TARGET = ["--model", "Llama-3.1-8B-Instruct", "--hardware", "A100"]
EXAMPLE = str(Path(__file__).parents[2] / "examples" / "cluster.yaml")


def test_replicas_and_a_router_are_options(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["simulate", *TARGET, *WORK, "--replicas", "3", "--router", "power-of-two", "--router-staleness", "50ms"]
    assert main([*argv, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["router"] == "power-of-two"
    assert len(result["replicas"]) == 3
    assert sum(replica["finished"] for replica in result["replicas"]) == result["completed"] == 40
    assert result["mean_ttft_ms_low"] < result["mean_ttft_ms"] < result["mean_ttft_ms_high"]


def test_a_cluster_file_gives_tables_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--cluster", EXAMPLE, *WORK, "--no-bands", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    for words in ("5 replicas on 5 devices, router least-requests", "large/1", "small/2", "H100-SXM, calibrated"):
        assert words in shown
    assert set(pd.read_csv(tmp_path / "requests.csv").replica) <= {
        "large/0",
        "large/1",
        "small/0",
        "small/1",
        "small/2",
    }


def test_one_replica_is_the_same_as_none_said(capsys: pytest.CaptureFixture[str]) -> None:
    outputs = []
    for more in ([], ["--replicas", "1"]):
        assert main(["simulate", *TARGET, *WORK, *more, "--json"]) == 0
        outputs.append(json.loads(capsys.readouterr().out))
    alone, cluster = outputs
    shared = set(alone) & set(cluster) - {"bands"}
    assert len(shared) > 80
    assert {key: alone[key] for key in shared} == {key: cluster[key] for key in shared}


def test_ranks_and_stages_are_options(capsys: pytest.CaptureFixture[str]) -> None:
    experts = ["--model", "Qwen3-30B-A3B", "--hardware", "H100", "-dp", "2", "-tp", "2", "--enable-expert-parallel"]
    assert main(["simulate", *experts, *WORK, "--replicas", "2", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    (group,) = result["groups"]
    assert [replica["name"] for replica in result["replicas"]] == ["all/0.0", "all/0.1", "all/1.0", "all/1.1"]
    assert (group["replicas"], group["hardware"], group["data_parallel_size"]) == (2, "4 x H100-SXM", 2)
    assert group["expert_parallel"]
    assert "experts picked uniformly" in group["uncertainty"]
    assert result["router"] == "least-requests"
    assert main(["simulate", *TARGET, *WORK, "-pp", "2", "--json"]) == 0
    staged = json.loads(capsys.readouterr().out)
    assert (staged["pipeline_parallel_size"], staged["completed"]) == (2, 40)
    assert staged["mean_ttft_ms_low"] < staged["mean_ttft_ms"] < staged["mean_ttft_ms_high"]


@pytest.mark.parametrize("sizes", [["-dp", "1"], ["-pp", "1"], ["-tp", "1"]])
def test_a_size_of_one_is_the_same_as_none_said(sizes: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    outputs = []
    for more in ([], sizes):
        assert main(["simulate", *TARGET, *WORK, *more, "--no-bands", "--json"]) == 0
        outputs.append(json.loads(capsys.readouterr().out))
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ([*TARGET, "--data-parallel-size", "0"], "--data-parallel-size must be at least 1, not 0"),
        (["--cluster", EXAMPLE, "-dp", "2"], "--data-parallel-size and --cluster contradict"),
        (
            [*TARGET, "--enable-expert-parallel"],
            "enable_expert_parallel: meta-llama/Llama-3.1-8B-Instruct has no experts",
        ),
        ([*TARGET, "-pp", "40"], "40 pipeline stages: it has 32 layers"),
        ([*TARGET, "--replicas", "0"], "--replicas must be at least 1, not 0"),
        ([*TARGET, "--replicas", "2", "--router", "fast"], "router.policy: unknown router 'fast'"),
        (["--cluster", EXAMPLE, "--replicas", "2"], "--replicas and --cluster contradict"),
        (["--replicas", "2"], "which model?"),
        (["--cluster", "none.yaml"], "cannot read the cluster file none.yaml"),
    ],
)
def test_what_cannot_be_is_refused(argv: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", *argv, *WORK]) == 2
    assert sentence in capsys.readouterr().err


def test_times_have_units() -> None:
    assert [duration_s(text) for text in ("50ms", "0.05s", "0.05", "100us")] == pytest.approx([0.05, 0.05, 0.05, 1e-4])
