"""Features of replicas from the command line and from a cluster file: their keys, their columns, and their tables."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet
import pytest

from simserve.cli.main import main

RUN = ["simulate", "--model", "Llama-3.1-8B-Instruct", "--hardware", "A100", "--synthetic", "--no-bands"]
TALK = ["--sessions", "6", "--turns", "4", "--request-rate", "20", "--num-gpu-blocks", "300", "--input-len", "500"]
TIERS = ["--kv-offloading-size", "0.5", "--kv-disk-size", "20"]


def test_where_prefixes_came_from(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main([*RUN, *TALK, *TIERS, "--json", "--out", str(tmp_path)]) == 0
    result = json.loads(capsys.readouterr().out)
    table = pyarrow.parquet.read_table(tmp_path / "requests.parquet").to_pandas()
    assert result["kv_fetches"] > 0
    assert table["kv_host_tokens"].sum() == result["kv_host_tokens"] > 0
    assert table["kv_disk_tokens"].sum() == result["kv_disk_tokens"]
    assert main([*RUN, *TALK, *TIERS]) == 0
    assert "kv host tokens" in capsys.readouterr().out


def test_drafts_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    drafts = '{"method": "eagle", "num_speculative_tokens": 2, "acceptance": [1, 1]}'
    assert main([*RUN, *TALK, "--speculative-config", drafts, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["spec_mean_acceptance_length"] == 3
    assert result["uncertainty"].endswith("drafts are accepted as stated, not predicted")
    assert main([*RUN, *TALK, "--speculative-config", "{}"]) == 2
    assert capsys.readouterr().err == "simserve: --speculative-config: method: Field required\n"


def test_an_engine_without_features_says_nothing_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*RUN, *TALK, "--json"]) == 0
    assert not [key for key in json.loads(capsys.readouterr().out) if key.startswith("kv_") and key.endswith("_tokens")]
    assert main([*RUN, *TALK]) == 0
    assert "features" not in capsys.readouterr().out


def test_a_group_of_a_cluster_has_its_own(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(
        "groups:\n- {name: plain, engine: {num_gpu_blocks: 300}}\n"
        "- {name: tiered, engine: {num_gpu_blocks: 300, kv_offloading_size: 4,\n"
        "   speculative_config: {method: ngram, num_speculative_tokens: 2, acceptance: 0.5}}}\n"
    )
    assert main([*RUN, *TALK, "--cluster", str(file), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["kv_host_tokens"] > 0
    assert result["spec_mean_acceptance_length"] > 1
    file.write_text("groups:\n- {name: a, engine: {kv_disk_size: 4}}\n")
    assert main([*RUN, *TALK, "--cluster", str(file)]) == 2
    assert capsys.readouterr().err.startswith("simserve: groups[0].engine: --kv-disk-size needs --kv-offloading-size")
