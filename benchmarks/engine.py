"""The torch engine beside transformers' ``generate`` and beside what the machine allows, measured in one run.

    python benchmarks/engine.py [--model s|m] [--dtypes float32,bfloat16] [--batches 1,8,32] [--json FILE]

Both generate greedily with random weights of the same shapes. Decode: the median of step times, engine and
transformers in turns, so that whatever else the machine does hits both. Arrivals: requests of mixed lengths come over
time; transformers takes all that wait whenever it is free, and is busy until the longest of them is done. The roofline
is a step's bytes over the bandwidth, or its FLOPs over the peak, both measured just before.
On a busy machine use --threads 1 --cpu-time: the thread's own time, which others can slow down but not take.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from simserve.config import EngineOptions
from simserve.engines.base import SamplingParams
from simserve.engines.torch import EngineCore, load_core
from simserve.engines.torch.sequence import Sequence
from simserve.models import ModelSpec, parse_config

SHAPES = {
    "s": {"hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 2,
          "intermediate_size": 1408},
    "m": {"hidden_size": 1024, "num_hidden_layers": 16, "num_attention_heads": 16, "num_key_value_heads": 4,
          "intermediate_size": 2816},
}  # fmt: skip
"""55 and 246 million parameters."""

COMMON = {"vocab_size": 32000, "max_position_embeddings": 4096, "rms_norm_eps": 1e-6}
CACHES = ("dynamic", "static")
"""Of transformers; decode is compared with the one that is faster. Compiling takes minutes and is left out for both."""
PROMPT_TOKENS = 128
MEAN_TOKENS = 88
GREEDY = SamplingParams(temperature=0.0, ignore_eos=True)

Clock = Callable[[], float]


@dataclass(frozen=True)
class Pair:
    """The same model twice."""

    spec: ModelSpec
    core: EngineCore
    reference: Any
    clock: Clock


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=SHAPES, default="s", help="55 or 246 million parameters (s)")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--batches", default="1,8,32")
    parser.add_argument("--tokens", type=int, default=48, help="answers' length in the decode benchmark (48)")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each (3)")
    parser.add_argument("--requests", type=int, default=96, help="requests that arrive over time; 0 for none (96)")
    parser.add_argument("--threads", type=int, help="that torch computes with (as many as it wants)")
    parser.add_argument("--cpu-time", action="store_true", help="count the thread's own time; needs --threads 1")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    if args.cpu_time and args.threads != 1:
        parser.error("--cpu-time sees one thread only: give --threads 1 with it")
    if args.threads:
        torch.set_num_threads(args.threads)
    clock = time.thread_time if args.cpu_time else time.perf_counter
    figures: list[dict[str, Any]] = []
    for dtype in args.dtypes.split(","):
        pair = make_pair(args.model, dtype, clock)
        limits = measure_limits(getattr(torch, dtype), clock)
        for batch in map(int, args.batches.split(",")):
            figures.append(decode(pair, dtype, batch, args.tokens, args.repeats, limits))
            show(figures[-1])
        if args.requests:
            figures.append(arrivals(pair, dtype, args.requests))
            show(figures[-1])
    decodes = [row["ratio"] for row in figures if row["what"] == "decode"]
    mean = math.exp(statistics.fmean(math.log(ratio) for ratio in decodes))
    print(f"decode against transformers: geometric mean {mean:.2f}, least {min(decodes):.2f}")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")


def show(row: dict[str, Any]) -> None:
    print(
        "  ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items())
    )


def make_pair(model: str, dtype: str, clock: Clock) -> Pair:
    transformers.utils.logging.disable_progress_bar()
    config = {**SHAPES[model], **COMMON}
    spec = parse_config(
        {"architectures": ["LlamaForCausalLM"], "torch_dtype": dtype, "tie_word_embeddings": False, **config},
        source="benchmark", name=model,
    )  # fmt: skip
    reference = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config)).to(getattr(torch, dtype)).eval()
    options = EngineOptions(max_num_seqs=32, num_gpu_blocks=2000, enable_prefix_caching=False)
    return Pair(spec, load_core(spec, dtype=dtype, options=options, clock_s=clock), reference, clock)


def measure_limits(dtype: torch.dtype, clock: Clock) -> tuple[float, float]:
    """(bytes/s of reading, FLOP/s of a product), each the best of several."""
    big = torch.ones(64 * 2**20)
    read = min(timed(clock, big.sum) for _ in range(5))
    square = torch.randn(2048, 2048).to(dtype)
    product = min(timed(clock, lambda: square @ square) for _ in range(5))
    return big.numel() * 4 / read, 2 * 2048**3 / product


def timed(clock: Clock, run: Callable[[], object]) -> float:
    start_s = clock()
    run()
    return clock() - start_s


def prompt(tokens: int, seed: int) -> list[int]:
    return np.random.default_rng(seed).integers(3, COMMON["vocab_size"], tokens).tolist()


def decode(
    pair: Pair, dtype: str, batch: int, tokens: int, repeats: int, limits: tuple[float, float]
) -> dict[str, Any]:
    prompts = [prompt(PROMPT_TOKENS, seed) for seed in range(batch)]
    ours: list[float] = []
    by_cache: dict[str, list[float]] = {cache: [] for cache in CACHES}
    for turn in range(repeats + 1):  # the first to warm up
        engine_s = engine_steps(pair, prompts, tokens)
        reference_s = {cache: reference_steps(pair, prompts, tokens, cache) for cache in CACHES}
        if turn:
            ours.append(statistics.median(engine_s))
            for cache, seconds in reference_s.items():
                by_cache[cache].append(statistics.median(seconds))
    step_s = statistics.median(ours)
    better, theirs = min(by_cache.items(), key=lambda item: statistics.median(item[1]))
    ratio = statistics.median(reference / engine for reference, engine in zip(theirs, ours, strict=True))
    return {
        "what": "decode", "dtype": dtype, "batch": batch, "step_ms": step_s * 1e3,
        "transformers_ms": statistics.median(theirs) * 1e3, "cache": better, "ratio": ratio,
        "of_roofline": ideal_step_s(pair.spec, dtype, batch, PROMPT_TOKENS + tokens // 2, limits) / step_s,
    }  # fmt: skip


def engine_steps(pair: Pair, prompts: list[list[int]], tokens: int) -> list[float]:
    """Durations of the decode steps."""
    core = pair.core
    core.ledger = []
    for at, token_ids in enumerate(prompts):
        core.add(Sequence(str(at), token_ids, tokens, GREEDY))
    ends = []
    while core.has_work:
        core.step()
        ends.append(pair.clock())
    pure = [not step.chunks for step in core.ledger]
    return [b - a for a, b, is_pure in zip(ends, ends[1:], pure[1:], strict=False) if is_pure]


def reference_steps(pair: Pair, prompts: list[list[int]], tokens: int, cache: str = CACHES[0]) -> list[float]:
    ends: list[float] = []

    def note(ids: torch.Tensor, scores: torch.Tensor, **more: Any) -> torch.Tensor:
        ends.append(pair.clock())
        return torch.zeros(ids.shape[0], dtype=torch.bool)

    inputs = torch.tensor(prompts)
    with torch.inference_mode():
        pair.reference.generate(
            inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=tokens, do_sample=False, eos_token_id=None,
            pad_token_id=0, stopping_criteria=[note], cache_implementation=cache, disable_compile=True,
        )  # fmt: skip
    return [b - a for a, b in pairwise(ends)]


def ideal_step_s(spec: ModelSpec, dtype: str, batch: int, context: int, limits: tuple[float, float]) -> float:
    bandwidth, peak = limits
    embedding = spec.vocab_size * spec.hidden_size  # of which a step reads a row each
    weights = spec.num_parameters - embedding
    width = 4 if dtype == "float32" else 2
    bytes_read = weights * width + batch * context * spec.kv_bytes_per_token(dtype)
    flops = batch * (2 * weights + spec.attention_decode_flops(context))
    return max(bytes_read / bandwidth, flops / peak)


def arrivals(pair: Pair, dtype: str, requests: int) -> dict[str, Any]:
    """Tokens per second when requests with lengths as chats have them come faster than either can serve."""
    draw = np.random.default_rng(0)
    prompts = [prompt(int(length), seed) for seed, length in enumerate(lognormal(draw, 64, 0.8, requests))]
    lengths = lognormal(draw, 64, 0.8, requests).tolist()
    token_s = timed(pair.clock, lambda: reference_steps(pair, prompts[:1], 32)) / 32
    times = np.cumsum(draw.exponential(token_s * MEAN_TOKENS / 16, requests)).tolist()
    theirs = in_rectangles(pair, prompts, lengths, times)
    ours = continuously(pair, prompts, lengths, times)
    tokens = sum(lengths)
    return {
        "what": "arrivals",
        "dtype": dtype,
        "requests": requests,
        "tokens_per_s": tokens / ours,
        "transformers_tokens_per_s": tokens / theirs,
        "ratio": theirs / ours,
    }


def lognormal(draw: np.random.Generator, median: int, sigma: float, count: int) -> Any:
    """Lengths from 4 to 512 tokens; with median 64 and sigma 0.8 their mean is 88."""
    return np.clip(draw.lognormal(math.log(median), sigma, count), 4, 512).astype(int)


class Waiting:
    """The clock of a run in which nothing waits for real: idle time is skipped."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._skipped_s = -clock()

    def now_s(self) -> float:
        return self._clock() + self._skipped_s

    def skip_to(self, time_s: float) -> None:
        self._skipped_s += max(0.0, time_s - self.now_s())


def continuously(pair: Pair, prompts: list[list[int]], lengths: list[int], times: list[float]) -> float:
    core, at, clock = pair.core, 0, Waiting(pair.clock)
    while core.has_work or at < len(times):
        if not core.has_work:
            clock.skip_to(times[at])
        while at < len(times) and times[at] <= clock.now_s():
            core.add(Sequence(str(at), prompts[at], lengths[at], GREEDY))
            at += 1
        core.step()
    return clock.now_s()


def in_rectangles(pair: Pair, prompts: list[list[int]], lengths: list[int], times: list[float]) -> float:
    at, clock = 0, Waiting(pair.clock)
    while at < len(times):
        clock.skip_to(times[at])
        batch = [row for row in range(at, min(at + 32, len(times))) if times[row] <= clock.now_s()]
        longest = max(len(prompts[row]) for row in batch)
        inputs = torch.tensor([[0] * (longest - len(prompts[row])) + prompts[row] for row in batch])
        mask = torch.tensor([[0] * (longest - len(prompts[row])) + [1] * len(prompts[row]) for row in batch])
        with torch.inference_mode():
            pair.reference.generate(
                inputs, attention_mask=mask, max_new_tokens=max(lengths[row] for row in batch), do_sample=False,
                eos_token_id=None, pad_token_id=0,
            )  # fmt: skip
        at = batch[-1] + 1
    return clock.now_s()


if __name__ == "__main__":
    main()
