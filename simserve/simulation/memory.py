"""Which way of planning memory an engine has, and its defaults: vLLM profiles a run, SGLang sets a share aside."""

from __future__ import annotations

from dataclasses import replace

from simserve.config import PRESETS, EngineOptions
from simserve.errors import ConfigError
from simserve.hardware import HardwareProfile
from simserve.latency import MemoryPlan, plan_memory
from simserve.latency.host import captured_graphs
from simserve.latency.memory import GRAPH_BYTES
from simserve.latency.sglang_memory import default_chunk_tokens, default_share, plan_static_memory
from simserve.models import ModelSpec, StageModel
from simserve.simulation.formats import Formats

SGLANG = "sglang"

DEFAULT_GPU_MEMORY_UTILIZATION = 0.9

MOST_LOGITS_SEQS = 1024
"""Sequences whose logits memory is set aside for, however many may run."""


def with_memory_defaults(options: EngineOptions, hardware: HardwareProfile) -> EngineOptions:
    """``options`` with what the engine chooses by the device's memory where the user says nothing."""
    preset = PRESETS[options.engine_preset] if options.engine_preset else {}
    sizes = (options.chunked_prefill_size, options.max_num_batched_tokens)
    if (options.policy or preset.get("policy")) != SGLANG or any(sizes) or options.enable_chunked_prefill is False:
        return options
    return replace(options, chunked_prefill_size=default_chunk_tokens(hardware))


def plan_for(
    model: ModelSpec,
    hardware: HardwareProfile,
    options: EngineOptions,
    formats: Formats,
    max_num_seqs: int,
    token_budget: int,
) -> MemoryPlan:
    """The KV blocks of an engine with resolved ``options``, or of one of its pipeline stages.

    Raises :class:`simserve.errors.CapacityError` if weights do not fit, :class:`ConfigError` for what the engine's way
    of planning has no use for.
    """
    devices, share = options.tensor_parallel_size, options.gpu_memory_utilization
    if options.policy == SGLANG:
        if options.count_graph_memory is not None:
            raise ConfigError("policy sglang sets memory for graphs aside in any case; leave --count-graph-memory out")
        return plan_static_memory(
            model,
            hardware,
            dtype=formats.dtype,
            quantization=formats.quantization,
            kv_dtype=formats.kv_dtype,
            tensor_parallel_size=devices,
            share=default_share(hardware, token_budget, devices) if share is None else share,
            block_size=options.block_size,
        )
    samples = not isinstance(model, StageModel) or model.is_last
    counted = options.count_graph_memory and hardware.kind == "gpu" and not options.enforce_eager
    # vLLM captures each with adapters and without (cudagraph_specialize_lora).
    graphs = captured_graphs(max_num_seqs, token_budget) * (2 if options.enable_lora else 1)
    return plan_memory(
        model,
        hardware,
        dtype=formats.dtype,
        quantization=formats.quantization,
        kv_dtype=formats.kv_dtype,
        tensor_parallel_size=devices,
        gpu_memory_utilization=DEFAULT_GPU_MEMORY_UTILIZATION if share is None else share,
        block_size=options.block_size,
        max_num_batched_tokens=token_budget,
        max_num_seqs=min(max_num_seqs, MOST_LOGITS_SEQS) if samples else 0,
        graph_bytes=GRAPH_BYTES * graphs if counted else 0,
        devices=devices * options.pipeline_parallel_size,
    )
