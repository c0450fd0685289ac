"""``hf``: a data set of the Hugging Face hub (or a folder of one), through the library ``datasets``."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from simserve.bench.datasets.base import Drawn, Order, fill_up, is_usable
from simserve.bench.datasets.conversations import first_turns
from simserve.bench.sample import Sample
from simserve.errors import ConfigError, WorkloadError

OUTPUT_TOKENS = {
    "likaixin/InstructCoder": 200,
    "philschmid/mt-bench": 256,
    "openai/openai_humaneval": 256,
    "openai/gsm8k": 256,
    "vdaita/edit_5k_char": 4000,
    "vdaita/edit_10k_char": 4000,
}
"""Lengths of answers to data sets that have none that count, as ``vllm bench serve`` asks for them."""

DEFAULT_OUTPUT = 256

QUESTIONS = ("prompt", "question", "problem", "instruction", "input", "text", "query")
ANSWERS = ("answer", "response", "solution", "output", "completion", "chosen", "canonical_solution")
"""Columns that hold a text to ask, and what was answered; the first that a row has counts."""

SHUFFLE_BUFFER = 10_000


def draw_hugging_face(order: Order) -> Drawn:
    """Questions of the data set --dataset-path, streamed unless ``no_stream``, shuffled by the seed."""
    name = order.settings.get("hf_name") or order.path
    if order.path is None:
        raise ConfigError("which data set? Give its name on the hub, such as openai/gsm8k, with --dataset-path")
    known = OUTPUT_TOKENS.get(str(name))
    forced = order.output_tokens if order.output_tokens is not None else known
    samples: list[Sample] = []
    for question, answer in _questions(order):
        text = order.rendered(question)
        tokens = order.counter.count(text)
        output = forced
        if output is None:
            output = order.counter.count(answer) if answer else DEFAULT_OUTPUT
        if known is not None or is_usable(tokens, output, forced=forced is not None):
            samples.append(Sample(text, tokens, output, order.counter.is_exact))
        if len(samples) == order.count:
            break
    return Drawn(fill_up(samples, order, order.path))


def _questions(order: Order) -> Iterator[tuple[str, str | None]]:
    try:
        from datasets import load_dataset
    except ImportError:
        raise ConfigError(
            "--dataset-name hf needs the library datasets; install it: pip install 'simserve[hf]'"
        ) from None
    settings = order.settings
    streaming = not settings.get("no_stream")
    try:
        rows = load_dataset(
            order.path, name=settings.get("hf_subset"), split=settings.get("hf_split") or "train", streaming=streaming
        )
        if order.shuffle:
            rows = rows.shuffle(seed=order.seed, buffer_size=SHUFFLE_BUFFER) if streaming else rows.shuffle(order.seed)
        first = list(islice(iter(rows), 1))
    except Exception as error:  # the library's own, of the network, of the disk
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise WorkloadError(
            f"the data set {order.path} cannot be loaded ({reason}); check its name and split"
        ) from None
    if not first or pair_of(first[0]) is None:
        found = ", ".join(first[0]) if first else "nothing"
        raise WorkloadError(
            f"the data set {order.path} has the columns {found}; SimServe looks for conversations, messages, turns or"
            f" one of {', '.join(QUESTIONS)}"
        )
    rng = random.Random(order.seed)
    for row in rows:
        pair = pair_of(row, rng)
        if pair is not None:
            yield pair


def pair_of(row: Mapping[str, Any], rng: random.Random | None = None) -> tuple[str, str | None] | None:
    """Question and, if there is one, answer of a row; None if it has neither."""
    conversation = first_turns(row)
    if conversation is not None:
        return conversation
    turns = row.get("turns")
    if isinstance(turns, list) and turns and isinstance(turns[0], str):
        return turns[0], None
    question = next((row[name] for name in QUESTIONS if isinstance(row.get(name), str) and row[name]), None)
    if question is None:
        return None
    if isinstance(row.get("instruction"), str) and isinstance(row.get("input"), str) and row["input"]:
        question = f"{row['instruction']}\n\n{row['input']}"
    answer = next((row[name] for name in ANSWERS if isinstance(row.get(name), str) and row[name]), None)
    return str(question), answer
