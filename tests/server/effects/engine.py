"""The engine's options: the same under ``engine``, for all models, and in ``models.available``, for one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from server.effects.effect import Effect, Look, again, engine, less, more, other, times, to
from server.serving import serving

LONG = {"prompt": [7] * 1500, "max_tokens": 4}
OTHER = {"prompt": [9] * 1500, "max_tokens": 4}
THIRD = {"prompt": [11] * 1500, "max_tokens": 4}
SHORT = {"prompt": [5, 6], "max_tokens": 40}
PROMPTS = {"prompt": [[at] * 1200 for at in range(3, 9)], "max_tokens": 40}
ANSWERS = {"prompt": [[at] * 100 for at in range(3, 15)], "max_tokens": 300}

FORGETFUL = "hardware: L4, num_gpu_blocks: 150"
"""Too few blocks for two of the long prompts."""
COME_BACK = again(LONG, OTHER, THIRD, LONG)


LORA = "enable_lora: true"


async def _adapters_in_turn(text: str) -> float:
    """The simulated milliseconds until an adapter answers that made way for another one."""
    async with serving(text) as client:
        for name in ("law", "art"):
            adapter = {"lora_name": name, "lora_path": f"org/{name}"}
            async with client.session.post("/v1/load_lora_adapter", json=adapter) as response:
                assert response.status == 200, await response.text()
        for name in ("law", "art", "law"):
            async with client.complete(model=name, max_tokens=2) as response:
                assert response.status == 200, await response.text()
        return float(response.headers["x-simserve-ttft-ms"])


@dataclass(frozen=True)
class Option:
    """An option with the others that it needs; see :class:`Effect`."""

    value: str
    look: Look
    expected: Callable[[Any, Any], bool]
    others: str = ""


OPTIONS = {
    "engine_preset": Option("vllm-0.6", engine("policy"), to("vllm-v0")),
    "policy": Option("sarathi", engine("policy"), to("sarathi")),
    "dtype": Option("float32", engine("dtype"), to("float32")),
    "quantization": Option("awq", engine("quantization"), to("awq")),
    "kv_cache_dtype": Option("fp8", engine("kv_cache_dtype"), to("fp8"), "hardware: H100"),
    "tensor_parallel_size": Option("2", engine("tensor_parallel_size"), to(2)),
    "pipeline_parallel_size": Option("2", engine("pipeline_parallel_size"), to(2)),
    "max_num_batched_tokens": Option("4096", engine("max_num_batched_tokens"), to(4096)),
    "gpu_memory_utilization": Option("0.5", engine("kv_blocks"), less),
    "num_gpu_blocks": Option("500", engine("kv_blocks"), to(500)),
    "count_graph_memory": Option("true", engine("kv_blocks"), less, "gpu_memory_utilization: 0.9"),
    "enforce_eager": Option("true", engine("kv_blocks"), more, "count_graph_memory: true"),
    "block_size": Option("32", engine("block_size"), to(32)),
    "enable_prefix_caching": Option("false", times({**LONG, "n": 2}, LONG), other),
    "enable_chunked_prefill": Option("false", times(PROMPTS), other),
    "long_prefill_token_threshold": Option("100", times(LONG, SHORT), other),
    "reserve_full_prompt": Option(
        "false", times(LONG, OTHER), other, "max_num_batched_tokens: 512, num_gpu_blocks: 150"
    ),
    "async_scheduling": Option("false", times(SHORT, of="tpot"), more),
    "scheduling_policy": Option(
        "priority",
        times(LONG, {**OTHER, "priority": 2}, {**THIRD, "priority": 1}, of="queue"),
        other,
        "num_gpu_blocks: 150",
    ),
    "watermark": Option("0.5", times(PROMPTS), more, "num_gpu_blocks: 400"),
    "chunked_prefill_size": Option("512", engine("max_num_batched_tokens"), to(512), "policy: sglang"),
    "schedule_policy": Option(
        "lpm",
        times({"prompt": [3] * 600}, {"prompt": [4] * 900}, {"prompt": [3] * 900}),
        other,
        "policy: sglang, chunked_prefill_size: 700",
    ),
    "schedule_conservativeness": Option("0.1", times(ANSWERS), other, "policy: sglang, num_gpu_blocks: 130"),
    "front_end": Option("vllm-v1", engine("front_end"), to("vllm-v1")),
    "api_server_count": Option("3", engine("api_server_count"), to(3), "front_end: vllm-v1"),
    "host_step_us": Option("5000", times(SHORT, of="tpot"), more),
    "host_request_us": Option("5000", times(SHORT, of="tpot"), more),
    "kv_offloading_size": Option("4", COME_BACK, less, FORGETFUL),
    "kv_offloading_bandwidth": Option("1", COME_BACK, more, f"{FORGETFUL}, kv_offloading_size: 4"),
    "kv_offloading_latency_us": Option("3000", COME_BACK, more, f"{FORGETFUL}, kv_offloading_size: 4"),
    "kv_disk_size": Option("4", COME_BACK, other, f"{FORGETFUL}, kv_offloading_size: 0.06"),
    "kv_disk_bandwidth": Option("1", COME_BACK, other, f"{FORGETFUL}, kv_offloading_size: 0.06, kv_disk_size: 4"),
    "kv_disk_latency_us": Option("9000", COME_BACK, other, f"{FORGETFUL}, kv_offloading_size: 0.06, kv_disk_size: 4"),
    "enable_lora": Option("true", engine("kv_blocks"), less),
    "max_loras": Option("4", engine("kv_blocks"), less, LORA),
    "max_lora_rank": Option("256", engine("kv_blocks"), less, LORA),
    "max_cpu_loras": Option("2", _adapters_in_turn, less, LORA),
    "lora_load_ms": Option("500", _adapters_in_turn, more, LORA),
    "lora_disk_bandwidth": Option("0.1", _adapters_in_turn, more, LORA),
    "lora_link_bandwidth": Option("0.1", _adapters_in_turn, more, f"{LORA}, max_cpu_loras: 2"),
    "speculative_config": Option(
        '\'{"method": "ngram", "num_speculative_tokens": 3, "acceptance": 0.9}\'', times(SHORT, of="tpot"), less
    ),
}

FOR_ALL = {**OPTIONS, "max_model_len": Option("1000", engine("max_model_len"), to(1000))}
FOR_ONE = {**OPTIONS, "max_num_seqs": Option("3", engine("max_num_seqs"), to(3))}


def _for_all(option: Option, key: str) -> Effect:
    def text(more: str) -> str:
        parts = ", ".join(part for part in ("time_scale: .inf", option.others, more) if part)
        return f"engine: {{{parts}}}\nmodels: {{default: facebook/opt-125m}}\n"

    return Effect(text(f"{key}: {option.value}"), option.look, option.expected, text(""))


def _for_one(option: Option, key: str) -> Effect:
    def text(more: str) -> str:
        parts = ", ".join(part for part in ("path: facebook/opt-125m", option.others, more) if part)
        return f"engine: {{time_scale: .inf}}\nmodels: {{available: {{a: {{{parts}}}}}}}\n"

    return Effect(text(f"{key}: {option.value}"), option.look, option.expected, text(""))


EFFECTS = {f"engine.{key}": _for_all(option, key) for key, option in FOR_ALL.items()} | {
    f"models.available.<name>.{key}": _for_one(option, key) for key, option in FOR_ONE.items()
}
