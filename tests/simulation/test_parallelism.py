"""Replicas of several devices: what each device holds, how long steps take, and which layouts are refused."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simserve.config import EngineOptions
from simserve.errors import ConfigError, ModelError, SimServeError
from simserve.hardware import load_hardware
from simserve.latency.pipeline import PipelineTimer
from simserve.metrics.records import FINISHED
from simserve.models import ModelSpec, list_models, load_model, split_into_stages, stage_layers
from simserve.simulation import prepare, simulate
from simserve.workload import synthetic_workload
from simulation.cluster.test_laws import assert_same, workloads

MODEL, HARDWARE = load_model("meta-llama/Llama-3.1-8B-Instruct"), load_hardware("A100")
DENSE_70B = load_model("meta-llama/Llama-3.1-70B-Instruct")
FEW = settings(max_examples=40, deadline=None)


def setup(model: ModelSpec = MODEL, **options: Any) -> Any:
    return prepare(model, HARDWARE, EngineOptions(**options))


def test_layers_are_dealt_out_as_vllm_does() -> None:
    assert stage_layers(32, 4) == [8, 8, 8, 8]
    assert stage_layers(61, 2) == [31, 30]
    assert stage_layers(61, 4) == [15, 15, 16, 15]
    assert stage_layers(30, 4) == [7, 8, 8, 7]


@pytest.mark.parametrize("name", list_models())
@pytest.mark.parametrize("tensor_parallel", [1, 2])
def test_the_stages_hold_the_whole_model_once_but_for_a_tied_embedding(name: str, tensor_parallel: int) -> None:
    model = load_model(name)
    if model.num_kv_heads % tensor_parallel:
        pytest.skip(f"{name} cannot be split over {tensor_parallel} devices")
    stages = split_into_stages(model, 2)
    held = sum(stage.weight_bytes_for("bfloat16", tensor_parallel) for stage in stages)
    whole = model.weight_bytes_for("bfloat16", tensor_parallel)
    copy = 2 * -(-model.vocab_size // tensor_parallel) * model.embedding_size if model.tie_word_embeddings else 0
    assert held == whole + copy
    assert sum(stage.kv_bytes_per_token() for stage in stages) == model.kv_bytes_per_token()


def test_every_stage_has_the_blocks_of_the_one_that_can_hold_the_fewest() -> None:
    one, two = setup(), setup(pipeline_parallel_size=2)
    assert two.block_bytes * 2 == one.block_bytes
    assert two.limits.num_blocks > 2 * one.limits.num_blocks


def test_a_model_too_large_for_one_device_fits_on_stages() -> None:
    with pytest.raises(SimServeError, match="does not fit"):
        setup(DENSE_70B)
    assert setup(DENSE_70B, pipeline_parallel_size=4).limits.num_blocks > 1000
    with pytest.raises(SimServeError, match=r"pipeline stage 0: .* does not fit"):
        setup(DENSE_70B, pipeline_parallel_size=2, gpu_memory_utilization=0.5)


@FEW
@given(
    st.sampled_from([2, 3, 4]), st.sampled_from([1, 2]), st.integers(0, 200), st.integers(1, 2000), st.integers(0, 500)
)
def test_a_step_alone_takes_about_the_sum_of_its_stages(
    stages: int, tensor_parallel: int, decodes: int, context: int, chunk: int
) -> None:
    """Within what the links add, and an embedding and a norm for each stage more."""
    whole = setup(tensor_parallel_size=tensor_parallel, async_scheduling=False, enforce_eager=True).timer
    split = setup(tensor_parallel_size=tensor_parallel, pipeline_parallel_size=stages, enforce_eager=True).timer
    assert isinstance(split, PipelineTimer)
    chunks = [(chunk, 0)] if chunk else []
    if not decodes and not chunks:
        return
    arguments = (decodes, decodes * context, chunks, decodes + len(chunks))
    stations = split.stations_s(*arguments)
    links = sum(stations[2::2])
    assert sum(stations) - links == pytest.approx(whole.step_s(*arguments), rel=0.02, abs=stages * 20e-6)
    assert split.step_s(*arguments) == sum(stations)


@FEW
@given(workloads())
def test_one_stage_and_one_device_are_no_parallelism(workload: Any) -> None:
    options = EngineOptions(num_gpu_blocks=90, max_num_seqs=16, max_num_batched_tokens=256)
    said = EngineOptions(**{**asdict(options), "tensor_parallel_size": 1, "pipeline_parallel_size": 1})
    assert_same(simulate(workload, MODEL, HARDWARE, options).records, simulate(workload, MODEL, HARDWARE, said).records)


@FEW
@given(workloads(), st.integers(2, 4), st.sampled_from(["none", "vllm-v1"]), st.sampled_from([45, 90]))
def test_everybody_ends_once_with_all_tokens(workload: Any, stages: int, front_end: str, blocks: int) -> None:
    options = EngineOptions(
        num_gpu_blocks=blocks, max_num_seqs=16, max_num_batched_tokens=64, pipeline_parallel_size=stages,
        front_end=front_end,
    )  # fmt: skip
    done = simulate(workload, MODEL, HARDWARE, options)
    records = done.records
    fits = workload.input_tokens + workload.output_tokens < (blocks - 1) * 16
    finished = records.status == FINISHED
    assert len(records) == len(workload)
    assert np.all(finished[fits])
    assert np.array_equal(records.output_tokens[fits], workload.output_tokens[fits])
    assert np.all(records.arrival_s[finished] <= records.scheduled_s[finished])
    assert np.all(records.scheduled_s[finished] < records.first_token_s[finished])
    assert np.all(records.first_token_s[finished] <= records.finish_s[finished])
    assert int(records.gaps.count.sum()) == int((records.output_tokens[finished] - 1).sum())
    span_s = float((records.finish_s - records.first_token_s)[finished].sum())
    if front_end == "none":
        assert float((records.gaps.gap_s * records.gaps.count).sum()) == pytest.approx(span_s)
    assert done.totals.busy_s <= done.totals.duration_s * (1 + 1e-9)


def test_stages_raise_throughput_by_their_number_at_most() -> None:
    workload = synthetic_workload(300, 1000.0, 500, 100, seed=1)

    def rate(stages: int) -> float:
        options = EngineOptions(pipeline_parallel_size=stages, max_num_seqs=64, max_num_batched_tokens=512)
        return len(workload) / simulate(workload, MODEL, HARDWARE, options).totals.duration_s

    one, two, four = rate(1), rate(2), rate(4)
    assert one < two < 2 * one * 1.02
    assert two < four < 4 * one * 1.02


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"pipeline_parallel_size": 33}, "33 pipeline stages: it has 32 layers"),
        ({"pipeline_parallel_size": 0}, "--pipeline-parallel-size must be at least 1"),
        ({"pipeline_parallel_size": 2, "async_scheduling": True}, "--async-scheduling and --pipeline-parallel-size"),
        ({"pipeline_parallel_size": 2, "policy": "sglang"}, "--pipeline-parallel-size 2 needs policy vllm-v1"),
        ({"tensor_parallel_size": 3}, "cannot be split over 3 devices"),
    ],
)
def test_layouts_that_cannot_be_are_refused_in_a_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises((ConfigError, ModelError), match=sentence):
        setup(**options)


def test_presets_with_asynchronous_scheduling_do_without_it_in_a_pipeline() -> None:
    assert not setup(engine_preset="vllm-0.19", pipeline_parallel_size=2).async_scheduling


def test_every_prediction_of_a_pipeline_says_that_its_links_were_never_measured() -> None:
    done = simulate(synthetic_workload(2, 1.0, 10, 2, seed=1), MODEL, HARDWARE, EngineOptions(pipeline_parallel_size=2))
    assert "NVLink" in done.description.uncertainty
    assert "data sheet" in done.description.uncertainty
    assert done.description.pipeline_parallel_size == 2
    assert done.description.hardware.startswith("2 x ")
