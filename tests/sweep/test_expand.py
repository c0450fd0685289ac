"""From a spec to its runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simserve.errors import ConfigError
from simserve.sweep.axes import parse_axis
from simserve.sweep.expand import axis_names, jobs_of
from simserve.sweep.settings import arguments, command, run_key
from simserve.sweep.spec import read_spec, spec_from


def points(**given: Any) -> list[dict[str, Any]]:
    return [dict(job.point) for job in jobs_of(spec_from(given, "here"))]


def test_lists_and_ranges_are_crossed_the_last_axis_fastest() -> None:
    axes = {"hardware": ["A100", "L4"], "request-rate": {"from": 1, "to": 2, "step": 0.5}}
    assert points(axes=axes) == [
        {"hardware": name, "request_rate": rate} for name in ("A100", "L4") for rate in (1, 1.5, 2)
    ]


def test_a_log_range_keeps_the_ratio() -> None:
    axis = {"from": 8, "to": 128, "count": 5, "scale": "log"}
    assert [point["max_num_seqs"] for point in points(axes={"max_num_seqs": axis})] == [8, 16, 32, 64, 128]


def test_random_values_lie_between_their_ends_and_stay_when_another_axis_comes() -> None:
    axis = {"random": [16, 512], "count": 20, "scale": "log"}
    alone = [p["max_num_seqs"] for p in points(axes={"max_num_seqs": axis})]
    assert all(isinstance(value, int) and 16 <= value <= 512 for value in alone)
    beside = points(axes={"hardware": ["A100", "L4"], "max_num_seqs": axis})
    assert [p["max_num_seqs"] for p in beside if p["hardware"] == "L4"] == alone


def test_conditions_add_axes_and_settings_where_they_hold() -> None:
    spec = {
        "axes": {"hardware": ["A100", "L4"]},
        "conditional": [
            {"when": {"hardware": "L4"}, "axes": {"quantization": [None, "fp8"]}, "set": {"max_num_seqs": 64}}
        ],
    }
    jobs = jobs_of(spec_from(spec, "here"))
    assert [job.point for job in jobs] == [
        {"hardware": "A100"}, {"hardware": "L4", "quantization": None}, {"hardware": "L4", "quantization": "fp8"},
    ]  # fmt: skip
    assert [job.settings.get("max_num_seqs") for job in jobs] == [None, 64, 64]
    assert axis_names(jobs) == ["hardware", "quantization"]


def test_combinations_can_be_skipped() -> None:
    axes = {"hardware": ["A100", "L4"], "tensor_parallel_size": [1, 2]}
    assert {"hardware": "A100", "tensor_parallel_size": 2} not in points(
        axes=axes, skip=[{"hardware": "A100", "tensor_parallel_size": [2, 4]}]
    )
    with pytest.raises(ConfigError, match="skip leaves every combination out"):
        points(axes=axes, skip=[{"hardware": ["A100", "L4"]}])


def test_seeds_repeat_every_combination() -> None:
    jobs = jobs_of(spec_from({"axes": {"hardware": ["A100", "L4"]}, "seeds": 3}, "here"))
    assert [job.settings["seed"] for job in jobs] == [0, 1, 2, 0, 1, 2]
    assert axis_names(jobs) == ["hardware"]


def test_percentiles_of_the_slo_are_computed() -> None:
    (job,) = jobs_of(spec_from({"base": {"hardware": "A100"}, "slo": "ttft:p95=1s"}, "here"))
    assert job.settings["metric_percentiles"] == "50,90,95,99"


@given(st.permutations(["A100", "L4", "H200"]), st.permutations([1, 2, 4]))
def test_another_order_of_the_spec_names_the_same_runs(hardware: list[str], sizes: list[int]) -> None:
    """So a changed spec finds again what is done."""
    usual = {
        job.key for job in jobs_of(spec_from({"axes": {"hardware": ["A100", "L4", "H200"], "tp": [1, 2, 4]}}, "a"))
    }
    assert {job.key for job in jobs_of(spec_from({"axes": {"tp": sizes, "hardware": hardware}}, "b"))} == usual


def test_a_file_that_changes_makes_another_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("1")
    before = run_key({"trace": str(trace)})
    trace.write_text("2")
    assert run_key({"trace": str(trace)}) != before


def test_a_run_is_a_command_line() -> None:
    settings = {
        "hardware": "my GPU",
        "request_rate": 0.1 + 0.2,
        "enable_prefix_caching": False,
        "bands": True,
        "x": None,
    }
    assert arguments(settings) == [
        "--hardware",
        "my GPU",
        "--request-rate",
        "0.3",
        "--no-enable-prefix-caching",
        "--bands",
    ]
    assert command(settings).startswith("simserve simulate --hardware 'my GPU' ")


def test_values_on_a_command_line() -> None:
    assert parse_axis("hardware", "A100,L4", numeric=False) == ["A100", "L4"]
    assert parse_axis("request_rate", "1:3:1", numeric=True) == [1, 2, 3]
    assert parse_axis("request_rate", "0.5,inf", numeric=True) == [0.5, float("inf")]
    assert parse_axis("quantization", "none,fp8", numeric=False) == [None, "fp8"]
    assert parse_axis("front_end", "4:2:45", numeric=False) == ["4:2:45"]
    with pytest.raises(ConfigError, match="--request-rate 3:1:1 is no range"):
        parse_axis("request_rate", "3:1:1", numeric=True)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("axes: {a: {from: 1, to: 3}}", "axes.a: give either step or count"),
        ("axes: {a: {from: 3, to: 1, step: 1}}", "axes.a: a range from 3 to 1 is empty"),
        ("axes: {a: {random: [2, 1], count: 3}}", "axes.a: nothing can be drawn"),
        ("axis: {a: 1}", "axis: Extra inputs are not permitted"),
        ("base: {a: 1}\naxes: {a: [1, 2]}", "a is both in base and an axis"),
        ("axes: {seed: [1, 2]}", "seeds has a key of its own"),
        ("capacity: {}", "capacity is the highest load that meets an SLO; give slo too"),
        ("slo: 'ttft:p99=1s'\nbase: {request_rate: 1}\ncapacity: {}", "capacity searches request_rate"),
        ("slo: nonsense", "'nonsense' is no SLO"),
        ("seeds: []", "seeds: give one seed or more"),
        ("- 1", "describes no sweep"),
        ("a: [", "is no YAML"),
    ],
)
def test_a_spec_that_cannot_be_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_spec(path)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_a_spec_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*nowhere\.yaml: No such file"):
        read_spec(tmp_path / "nowhere.yaml")
