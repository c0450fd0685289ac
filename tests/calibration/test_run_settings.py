"""What a run says of its engine, in the files that recorders, vLLM and SGLang leave."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from simserve.calibration.run_settings import settings_beside, settings_in
from simserve.config import EngineOptions
from simserve.errors import WorkloadError
from simserve.hardware import load_hardware


def test_a_recorder_of_vllm_names_model_device_version_and_what_was_resolved() -> None:
    meta = {
        "model": "meta-llama/Llama-3.1-8B", "vllm_version": "0.19.0",
        "engine_kwargs": {"model": "meta-llama/Llama-3.1-8B", "max_num_seqs": 256, "data_parallel_size": 1},
        "kv_cache": {"num_gpu_blocks": 2588, "block_size": 16, "num_cpu_blocks": None},
        "hardware": {"device_name": "NVIDIA GeForce RTX 4090", "device_count": 1},
        "resolved_config": {
            "model_config": {"dtype": "torch.bfloat16", "enforce_eager": False, "quantization": None},
            "scheduler_config": {"max_num_seqs": 128, "async_scheduling": True, "scheduler_reserve_full_isl": True},
            "cache_config": {"gpu_memory_utilization": 0.9, "cache_dtype": "auto"},
            "speculative_config": None,
        },
    }  # fmt: skip
    found = settings_in(meta, "meta.json")

    assert found == {
        "model": "meta-llama/Llama-3.1-8B", "hardware": "RTX 4090", "engine_preset": "vllm-0.19", "max_num_seqs": 256,
        "num_gpu_blocks": 2588, "block_size": 16, "dtype": "bfloat16", "enforce_eager": False,
        "async_scheduling": True, "reserve_full_prompt": True, "gpu_memory_utilization": 0.9, "kv_cache_dtype": "auto",
    }  # fmt: skip
    assert load_hardware(found.pop("hardware")).name == "RTX4090"
    found.pop("model")
    EngineOptions(**found)


def test_a_config_file_of_vllm_serve_has_flags_for_names(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("model: Qwen/Qwen3-8B\nmax-model-len: 4096\nno-such: 1\ndtype: half\n")

    assert settings_beside(tmp_path / "result.json") == {
        "model": "Qwen/Qwen3-8B", "max_model_len": 4096, "dtype": "float16",
    }  # fmt: skip


def test_arguments_of_sglang_have_our_names(tmp_path: Path) -> None:
    arguments = {
        "sglang_version": "0.5.4", "model_path": "Qwen/Qwen3-8B", "tp_size": 2, "mem_fraction_static": 0.85,
        "chunked_prefill_size": -1, "max_running_requests": 64, "disable_radix_cache": True, "schedule_policy": "lpm",
        "speculative_algorithm": None,
    }  # fmt: skip
    (tmp_path / "server_args.json").write_text(json.dumps(arguments))

    assert settings_beside(tmp_path / "result.jsonl") == {
        "model": "Qwen/Qwen3-8B", "tensor_parallel_size": 2, "gpu_memory_utilization": 0.85, "max_num_seqs": 64,
        "enable_prefix_caching": False, "schedule_policy": "lpm", "engine_preset": "sglang-0.5",
    }  # fmt: skip


def test_text_from_tables_and_metadata_becomes_numbers() -> None:
    found = settings_in({"tp": "2", "gpu_memory_utilization": "0.75", "enable_prefix_caching": "False"}, "here")

    assert found == {"tensor_parallel_size": 2, "gpu_memory_utilization": 0.75, "enable_prefix_caching": False}


@pytest.mark.parametrize(
    ("version", "preset"),
    [
        ("0.1.7", "vllm-0.1"), ("0.4.2", "vllm-0.5"), ("0.6.3.post1", "vllm-0.6"), ("v0.10.1", "vllm-0.11"),
        ("0.14.0", "vllm-0.14"), ("0.19.0", "vllm-0.19"), ("0.33.1", "vllm-0.22"), ("nightly", None),
    ],
)  # fmt: skip
def test_the_version_chooses_the_preset(version: str, preset: str | None) -> None:
    assert settings_in({"vllm_version": version}, "here").get("engine_preset") == preset


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"data_parallel_size": 4}', "the run had data_parallel_size 4, but one replica"),
        ('{"speculative_config": {"method": "eagle"}}', "the run had a speculative_config, which is not simulated"),
        ('{"max_num_seqs": "many"}', "max_num_seqs is 'many', which is no value of it"),
        ('{"model":', "cannot be read as settings"),
        ("[1]", "holds no settings of an engine"),
    ],
)
def test_what_cannot_be_honoured_is_one_sentence(tmp_path: Path, content: str, sentence: str) -> None:
    (tmp_path / "meta.json").write_text(content)
    with pytest.raises(WorkloadError, match=sentence) as caught:
        settings_beside(tmp_path / "run.csv")
    assert str(caught.value).startswith(str(tmp_path / "meta.json"))
    assert "\n" not in str(caught.value)
