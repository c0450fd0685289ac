"""The cluster file: what contradicts itself is refused in one sentence that names the field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from simserve.config import EngineOptions
from simserve.errors import ConfigError, SimServeError
from simserve.simulation.cluster import Defaults, read_cluster, simulate_cluster
from simserve.workload import synthetic_workload
from simulation.cluster.clusters import HARDWARE, MODEL, spec

LINK = {"from": "p", "to": "d", "bandwidth_gb_per_s": 10}
PREFILL, DECODE = {"name": "p", "role": "prefill"}, {"name": "d", "role": "decode"}
EXAMPLE = Path(__file__).parents[3] / "examples" / "cluster.yaml"


def test_the_example_shows_every_key_and_its_default() -> None:
    cluster = read_cluster(EXAMPLE)
    assert [group.replicas for group in cluster.groups] == [2, 3]
    keys = {line.strip(" #-").partition(":")[0] for line in EXAMPLE.read_text().splitlines()}
    schema = type(cluster).model_json_schema()
    fields = {name for part in [schema, *schema["$defs"].values()] for name in part["properties"]}
    assert fields <= keys
    assert cluster.router.model_copy(update={"policy": "round-robin"}) == spec().router
    assert (cluster.retry, cluster.max_retries, cluster.seed) == (spec().retry, spec().max_retries, spec().seed)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"groups": []}, "groups: Tuple should have at least 1 item"),
        ({"groups": [{"name": "a", "count": 2}]}, "groups[0].count is no field of a cluster file"),
        ({"groups": [{"name": "a"}, {"name": "a"}]}, "groups: 'a' is there twice"),
        ({"groups": [{"name": "a", "replicas": 0}]}, "groups[0].replicas is 0 and no autoscaler starts any"),
        ({"router": {"staleness_s": -1}}, "router.staleness_s: Input should be greater than or equal to 0"),
        ({"router": {"order": "fair"}}, "router: order fair needs requests_per_replica"),
        ({"failures": [{"group": "b", "replica": 0, "at_s": 1}]}, "failures[0].group: there is no group 'b'"),
        ({"failures": [{"group": "all", "replica": 3, "at_s": 1}]}, "failures[0].replica 3 is none of 0 to 0"),
        ({"failures": [{"group": "all"}]}, "failures[0]: give either at_s or mean_time_between_failures_s"),
        ({"autoscalers": [{"group": "b", "max_replicas": 2, "target": 1}]}, "autoscalers[0].group: there is no group"),
        (
            {"autoscalers": [{"group": "all", "min_replicas": 3, "max_replicas": 2, "target": 1}]},
            "autoscalers[0]: max_replicas 2 is less than min_replicas 3",
        ),
        (
            {"autoscalers": [{"group": "all", "max_replicas": 2, "metric": "utilization", "target": 2}]},
            "autoscalers[0]: target 2 is no utilization",
        ),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        spec(**fields)
    assert str(refusal.value).startswith(f"test: {sentence}")


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"groups": [PREFILL]}, "groups[0].role is prefill, and no link brings its KV to a decode group"),
        ({"groups": [DECODE]}, "groups[0].role is decode, and no link brings it KV from a prefill group"),
        ({"links": [LINK]}, "links[0].from: there is no group 'p'"),
        ({"groups": [{"name": "p"}], "links": [LINK]}, "links[0].from: group 'p' has role mixed, not prefill"),
        (
            {"groups": [PREFILL, DECODE, {**DECODE, "name": "e"}], "links": [LINK]},
            "links: none brings KV from 'p' to 'e'",
        ),
    ],
)
def test_roles_and_links_that_contradict_are_refused(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        spec(**fields)
    assert str(refusal.value).startswith(f"test: {sentence}")


@pytest.mark.parametrize(
    ("decode", "sentence"),
    [
        ({"engine": {"policy": "orca"}}, "groups[1].role decode needs policy vllm-v1"),
        ({"engine": {"max_model_len": 100}}, "links[0]: p takes sequences of"),
        ({"engine": {"kv_cache_dtype": "float16"}}, "links[0] joins p and d, whose KV differs (bfloat16 and float16)"),
    ],
)
def test_engines_that_cannot_go_on_from_each_other_s_kv_are_refused(decode: dict[str, Any], sentence: str) -> None:
    cluster = spec(groups=[PREFILL, {**DECODE, **decode}], links=[LINK])
    with pytest.raises(ConfigError) as refusal:
        simulate_cluster(synthetic_workload(1, 1.0, 8, 8, seed=0), cluster, Defaults(MODEL, HARDWARE))
    assert str(refusal.value).startswith(sentence)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"router": {"policy": "fastest"}}, "router.policy: unknown router 'fastest'; choose one of round-robin, "),
        ({"router": {"policy": "random", "options": {"d": 3}}}, "router.options.d is no option of router random"),
        ({"groups": [{"name": "a", "model": "gpt-9"}]}, "groups[0].model: "),
        ({"groups": [{"name": "a", "hardware": "abacus"}]}, "groups[0].hardware: "),
        ({"groups": [{"name": "a", "engine": {"speed": 9}}]}, "groups[0].engine.speed is no engine option"),
        (
            {"groups": [{"name": "a", "engine": {"tensor_parallel_size": 2}}]},
            "groups[0].engine.tensor_parallel_size is",
        ),
        ({"groups": [{"name": "a", "engine": {"max_num_seqs": 0}}]}, "groups[0].engine: --max-num-seqs must be"),
        (
            {"groups": [{"name": "a", "engine": {"max_num_seqs": "many"}}]},
            "groups[0].engine holds a value of the wrong",
        ),
        (
            {"groups": [{"name": "a", "tensor_parallel_size": 3}]},
            "groups[0] (a): meta-llama/Llama-3.1-8B-Instruct cannot",
        ),
        (
            {"groups": [{"name": "a", "model": "Llama-3.1-70B-Instruct"}]},
            "groups[0] (a): meta-llama/Llama-3.1-70B-Instruct does not fit on 1 x A100-SXM4-80GB",
        ),
    ],
)
def test_what_does_not_fit_a_model_or_a_device_is_refused(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SimServeError) as refusal:
        simulate_cluster(synthetic_workload(1, 1.0, 8, 8, seed=0), spec(**fields), Defaults(MODEL, HARDWARE))
    assert str(refusal.value).startswith(sentence)


def test_without_a_model_or_hardware_it_says_where_to_name_one() -> None:
    workload = synthetic_workload(1, 1.0, 8, 8, seed=0)
    with pytest.raises(ConfigError, match=r"groups\[0\].model is not given"):
        simulate_cluster(workload, spec())
    with pytest.raises(ConfigError, match=r"groups\[0\].hardware is not given"):
        simulate_cluster(workload, spec(), Defaults(MODEL, None, EngineOptions()))


def test_a_file_that_is_not_there_or_no_yaml_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the cluster file"):
        read_cluster(tmp_path / "none.yaml")
    (tmp_path / "odd.yaml").write_text("groups: [")
    with pytest.raises(ConfigError, match="is no YAML"):
        read_cluster(tmp_path / "odd.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ConfigError, match="must hold keys such as groups, not list"):
        read_cluster(tmp_path / "list.yaml")
