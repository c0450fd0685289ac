"""``custom`` and ``spec_bench``: prompts of one's own, one JSON object per line."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import orjson

from simserve.bench.datasets.base import Drawn, Order, fill_up
from simserve.bench.sample import Media, Sample
from simserve.errors import WorkloadError

DEFAULT_OUTPUT = 256
AS_IN_ROW = -1

IMAGES, SOUNDS = ("image_files", "images", "image"), ("audio", "audio_file", "audio_files")
"""Keys under which a row names files, one or a list."""


def draw_custom(order: Order) -> Drawn:
    """Rows with ``prompt`` or ``messages``, and perhaps images or a sound (paths from the file's folder).

    ``custom_output_len`` tokens are asked for, or with -1 each row's ``output_tokens``. 0 or fewer --num-prompts take
    every row once.
    """
    path = order.file()
    wanted = int(order.settings.get("custom_output_len", DEFAULT_OUTPUT))
    samples = [_sample(row, number, path, order, wanted) for number, row in _rows(path, order)]
    if order.shuffle:
        random.Random(order.seed).shuffle(samples)
    return Drawn(samples if order.count <= 0 else fill_up(samples, order, str(path)))


def draw_spec_bench(order: Order) -> Drawn:
    """Rows with ``turns`` and ``category``: the first turn of each, of one category if that is asked for."""
    path = order.file()
    category = order.settings.get("spec_bench_category")
    output = int(order.settings.get("spec_bench_output_len", DEFAULT_OUTPUT))
    samples: list[Sample] = []
    for number, row in _rows(path, order):
        turns = row.get("turns")
        if not isinstance(turns, list) or not turns or not isinstance(turns[0], str):
            raise _blame(path, number, "needs turns, a list of texts")
        if category is None or row.get("category") == category:
            samples.append(_text_sample(order, turns[0], output))
    if not samples:
        raise WorkloadError(f"{path} has no row of the category {category}; leave --spec-bench-category out for all")
    if order.shuffle:
        random.Random(order.seed).shuffle(samples)
    return Drawn(samples if order.count <= 0 else fill_up(samples, order, str(path)))


def _rows(path: Path, order: Order) -> list[tuple[int, dict[str, Any]]]:
    """Line numbers and objects."""
    rows: list[tuple[int, dict[str, Any]]] = []
    for number, line in enumerate(order.text().split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise _blame(path, number, f"is not valid JSON ({error})") from None
        if not isinstance(row, dict):
            raise _blame(path, number, "is no JSON object")
        rows.append((number, row))
    if not rows:
        raise WorkloadError(f"{path} is empty; give one JSON object with a prompt per line")
    return rows


def _sample(row: dict[str, Any], number: int, path: Path, order: Order, wanted: int) -> Sample:
    output = row.get("output_tokens") if wanted == AS_IN_ROW else wanted
    if not isinstance(output, int) or output < 1:
        raise _blame(path, number, "needs output_tokens, at least 1, since --custom-output-len is -1")
    media = _media(row, number, path)
    messages = row.get("messages")
    if isinstance(messages, list):
        text = "\n".join(str(message.get("content", "")) for message in messages)
        return Sample(text, order.counter.count(text), output, order.counter.is_exact, messages, media)
    prompt = row.get("prompt", "" if media else None)
    if not isinstance(prompt, str):
        raise _blame(path, number, "needs a prompt, a text")
    return _text_sample(order, prompt, output, media)


def _text_sample(order: Order, prompt: str, output: int, media: tuple[Media, ...] = ()) -> Sample:
    text = order.rendered(prompt)
    return Sample(text, order.counter.count(text), output, order.counter.is_exact, media=media)


def _media(row: dict[str, Any], number: int, path: Path) -> tuple[Media, ...]:
    media: list[Media] = []
    for kind, keys in (("image", IMAGES), ("audio", SOUNDS)):
        for key in keys:
            names = row.get(key) or []
            for name in [names] if isinstance(names, str) else names:
                file = path.parent / str(name)
                if not file.is_file():
                    raise _blame(path, number, f"names {name}, which is no file")
                suffix = file.suffix.lstrip(".").lower().replace("jpg", "jpeg")
                media.append(Media("image" if kind == "image" else "audio", suffix, file.read_bytes()))
    return tuple(media)


def _blame(path: Path, number: int, what: str) -> WorkloadError:
    return WorkloadError(f"{path} line {number} {what}; repair the line")
