"""Options of the data sets of ``simserve bench``, by vLLM's names."""

from __future__ import annotations

import argparse
from typing import Any

from simserve.bench.names import DATASET_NAMES
from simserve.cli.options import number, whole_number

LENGTHS = (
    ("random-input-len", 1024, "tokens in each prompt"),
    ("random-output-len", 128, "tokens in each answer"),
    ("random-prefix-len", 0, "tokens that all prompts share at their beginning"),
    ("random-batch-size", 1, "prompts (or documents) in each request, embeddings and rerank"),
    ("sonnet-input-len", 550, "most tokens in each prompt"),
    ("sonnet-output-len", 150, "tokens in each answer"),
    ("sonnet-prefix-len", 200, "tokens that all prompts share"),
    ("custom-output-len", 256, "tokens in each answer; -1 takes each row's output_tokens"),
    ("spec-bench-output-len", 256, "tokens in each answer"),
    ("prefix-repetition-prefix-len", 256, "tokens in each prefix"),
    ("prefix-repetition-suffix-len", 256, "tokens after the prefix"),
    ("prefix-repetition-num-prefixes", 10, "different prefixes"),
    ("prefix-repetition-output-len", 128, "tokens in each answer"),
    ("random-mm-base-items-per-request", 1, "images in each request"),
)
"""Options of data sets that are whole numbers, with their defaults."""

NUMBERS = (
    ("random-mm-num-mm-items-range-ratio", 0.0, "how far the number of images may be from that"),
    ("random-audio-seconds", 10.0, "length of each sound"),
    ("random-audio-range-ratio", 0.0, "how far a sound's length may be from that"),
)

TEXTS = (
    ("random-range-ratio", "R|JSON", 'how far lengths may be from the mean: 0.3, or {"input": 0, "output": 0.5} (0)'),
    ("spec-bench-category", "NAME", "only prompts of this category (all)"),
    ("hf-subset", "NAME", "configuration of the data set"),
    ("hf-split", "NAME", "split of the data set (train)"),
    ("hf-name", "NAME", "name on the hub of a data set that lies in a folder"),
    ("random-mm-bucket-config", "DICT", "{(height, width, 1): probability, ...} of images"),
    ("random-mm-limit-mm-per-prompt", "N|JSON", 'most images in a request: 3, or {"image": 3, "video": 0}'),
    ("window", "START:LENGTH", "timed_trace: only these seconds of it"),
)


def add_dataset_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them; read them with :func:`dataset_settings` and :func:`forced_output`."""
    group = parser.add_argument_group("data set")
    group.add_argument("--dataset-name", default="random", metavar="NAME", help=f"{', '.join(DATASET_NAMES)} (random)")
    group.add_argument("--dataset-path", metavar="FILE", help="its file, or its name on the hub")
    group.add_argument("--disable-shuffle", action="store_true", help="take samples in the order of the file")
    group.add_argument("--no-oversample", action="store_true", help="use no sample twice, even if there are too few")
    group.add_argument(
        "--skip-chat-template",
        "--custom-skip-chat-template",
        action="store_true",
        help="send prompts of custom files as they are",
    )
    group.add_argument("--input-len", type=whole_number, metavar="N", help="--random-input-len or --sonnet-input-len")
    group.add_argument(
        "--output-len", type=whole_number, metavar="N", help="tokens in each answer, whatever the data set"
    )
    group.add_argument(
        "--sharegpt-output-len", type=whole_number, metavar="N", help="tokens in each answer (as recorded)"
    )
    group.add_argument("--hf-output-len", type=whole_number, metavar="N", help="tokens in each answer (the data set's)")
    group.add_argument("--no-reranker", action="store_true", help="random-rerank: the model is no cross-encoder")
    for name, default, meaning in LENGTHS:
        group.add_argument(f"--{name}", type=whole_number, default=None, metavar="N", help=f"{meaning} ({default})")
    for name, fraction, meaning in NUMBERS:
        group.add_argument(f"--{name}", type=number, default=None, metavar="X", help=f"{meaning} ({fraction:g})")
    for name, metavar, meaning in TEXTS:
        group.add_argument(f"--{name}", metavar=metavar, help=meaning)
    group.add_argument("--rate-scale", type=number, metavar="F", help="timed_trace: F times as many requests")
    group.add_argument("--max-input", type=whole_number, metavar="N", help="timed_trace: leave out longer prompts")
    group.add_argument("--speed", type=number, metavar="F", help="timed_trace: time runs F times faster")


def forced_output(args: argparse.Namespace) -> int | None:
    """The length of every answer where the data set has one of its own."""
    own = {"sharegpt": args.sharegpt_output_len, "hf": args.hf_output_len}.get(args.dataset_name)
    chosen = own if own is not None else args.output_len
    return None if chosen is None else int(chosen)


def dataset_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Options of data sets that were given, by their names with underscores."""
    names = [name for name, *_ in (*LENGTHS, *NUMBERS, *TEXTS)]
    names += ["rate-scale", "max-input", "speed"]
    keys = [name.replace("-", "_") for name in names]
    given = {key: getattr(args, key) for key in keys if getattr(args, key) is not None}
    given |= {"no_reranker": args.no_reranker, "no_stream": args.no_stream}
    if args.input_len is not None:
        given |= {"random_input_len": args.input_len, "sonnet_input_len": args.input_len}
    if args.output_len is not None:
        outputs = ("random", "sonnet", "custom", "spec_bench", "prefix_repetition")
        given |= {f"{name}_output_len": args.output_len for name in outputs}
    return given
