"""Which models a cluster serves, by which groups, and what cannot be served together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.cluster.serving import post, serving_cluster, streamed
from server.serving import serving, settings
from simserve.errors import ConfigError, SimServeError
from simserve.server.models import pool_of
from simserve.server.models.clusters import cluster_in

TWO_MODELS: dict[str, Any] = {
    "groups": [
        {"name": "small", "replicas": 2},
        {"name": "big", "model": "meta-llama/Llama-3.1-8B-Instruct"},
        {"name": "more", "replicas": 1},
    ],
    "failures": [{"group": "big", "replica": 0, "at_s": 1000.0}],
}


def pool(text: str) -> Any:
    return pool_of(settings(text))


def file_of(cluster: dict[str, Any], folder: Path) -> Path:
    file = folder / "cluster.yaml"
    file.write_text(yaml.safe_dump(cluster))
    return file


async def test_each_model_is_served_by_the_groups_that_have_it() -> None:
    async with serving_cluster(TWO_MODELS, ".inf") as client:
        cards = [card["id"] for card in (await client.get("/v1/models"))["data"]]
        assert cards == ["facebook/opt-125m", "meta-llama/Llama-3.1-8B-Instruct"]
        for _ in range(6):
            await streamed(client, 5)
        await streamed(client, 5, model=cards[1])
        assert [row["name"] for row in (await client.get("/cluster/replicas"))["replicas"]] == [
            "small/0", "small/1", "more/0", "big/0",
        ]  # fmt: skip
        for model, replicas in ((cards[0], {"small/0", "small/1", "more/0"}), (cards[1], {"big/0"})):
            async with client.session.get("/trace", params={"model": model}) as response:
                rows = [json.loads(line) for line in (await response.text()).splitlines()]
            assert {row["replica"] for row in rows} == replicas
        assert (await post(client, "/cluster/replicas/big/0/kill"))[0] == 200
        assert (await streamed(client, 5, model=cards[1])).status == 503
        assert len((await streamed(client, 5)).words) == 5


async def test_replicas_and_a_router_need_no_file() -> None:
    text = "cluster: {replicas: 2, router: power-of-two, router_staleness: 50ms}\n"
    async with serving(text + "engine: {time_scale: .inf}\nmodels: {default: facebook/opt-125m}") as client:
        await streamed(client, 5)
        now = await client.get("/status")
    assert now["gateway"]["router"] == "power-of-two"
    assert [row["name"] for row in now["replicas"]] == ["all/0", "all/1"]


def test_the_router_of_the_command_line_goes_before_that_of_the_file(tmp_path: Path) -> None:
    file = file_of({"groups": [{"name": "a"}], "router": {"policy": "random", "requests_per_replica": 3}}, tmp_path)
    router = cluster_in(
        settings(f"cluster: {{file: {file}, router: least-tokens, router_staleness: 0.1}}").cluster
    ).router
    assert (router.policy, router.staleness_s, router.requests_per_replica) == ("least-tokens", 0.1, 3)


async def test_what_the_file_leaves_open_is_as_for_one_engine(tmp_path: Path) -> None:
    file = file_of({"groups": [{"name": "a"}, {"name": "b", "engine": {"max_num_seqs": 7}}]}, tmp_path)
    text = f"cluster: {{file: {file}}}\nmodels: {{default: facebook/opt-125m, served_names: [gpt-4o]}}\n"
    text += "engine: {hardware: H100, block_size: 32}\ninference: {max_total_tokens: 1000, max_batch_size: 9}"
    only = pool(text).slots[0].model
    assert (only.names, only.max_model_len) == (("gpt-4o",), 1000)
    groups = (await only.load()).engine.describe()["groups"]
    assert [group["max_num_seqs"] for group in groups] == [9, 7]
    assert {(group["block_size"], group["max_model_len"]) for group in groups} == {(32, 1000)}
    assert {group["hardware"][:4] for group in groups} == {"H100"}


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ("cluster: {file: x.yaml, replicas: 2}", "cluster.replicas contradicts the cluster file"),
        ("cluster: {replicas: 2}\nengine: {type: torch}", "engine.type is torch, and a cluster is simulated"),
        ("cluster: {replicas: 0}", "cluster.replicas: input should be greater than or equal to 1"),
        ("cluster: {router: 3}", "cluster.router: "),
        ("cluster: {replicas: 2}\nmodels: {available: {a: {}}}", "models.available is not for a cluster"),
        ("cluster: {router: random}\nmodels: {max_loaded: 2}", "models.max_loaded is not for a cluster"),
        ("cluster: {replicas: 2}\nmodels: {models_dir: /}", "models.models_dir is not for a cluster"),
    ],
)
def test_keys_that_contradict_a_cluster_are_named(keys: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        settings(keys)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("cluster", "says"),
    [
        ({"groups": [{"name": "a"}], "router": {"policy": "best"}}, "router.policy: unknown router 'best'"),
        ({"groups": [{"name": "a", "model": "none"}]}, "groups[0].model: "),
        ({"groups": [{"name": "a", "role": "decode"}]}, "groups[0].role is decode"),
        (
            {"groups": [{"name": "a"}, {"name": "b", "engine": {"max_model_len": 2000}}]},
            "groups[1].engine.max_model_len of 2000 tokens is more than inference.max_total_tokens 1000",
        ),
    ],
)
def test_files_that_cannot_be_served_are_refused_before_anything_starts(
    cluster: dict[str, Any], says: str, tmp_path: Path
) -> None:
    text = f"cluster: {{file: {file_of(cluster, tmp_path)}}}\nmodels: {{default: facebook/opt-125m}}\n"
    with pytest.raises(SimServeError) as caught:
        pool(text + "inference: {max_total_tokens: 1000}")
    assert says in str(caught.value)
