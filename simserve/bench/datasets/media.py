"""``random-mm`` and ``random-audio``: noise to look at or to listen to, beside or instead of random text."""

from __future__ import annotations

import ast
import io
import math
import struct
import wave
import zlib

import numpy as np

from simserve.bench.datasets.base import Drawn, Order
from simserve.bench.datasets.random_text import draw_random
from simserve.bench.sample import Media, Sample
from simserve.errors import ConfigError

DEFAULT_BUCKETS = {(256, 256, 1): 0.5, (720, 1280, 1): 0.5}
"""Height, width and frames of an image, and how often it is drawn; as in ``vllm bench serve``."""

SAMPLE_RATE_HZ = 16_000

Bucket = tuple[int, int, int]


def draw_random_mm(order: Order) -> Drawn:
    """Random text with a few images of noise each."""
    text = draw_random(order)
    settings = order.settings
    mean = int(settings.get("random_mm_base_items_per_request", 1))
    ratio = float(settings.get("random_mm_num_mm_items_range_ratio", 0.0))
    most = most_images(settings.get("random_mm_limit_mm_per_prompt"))
    if not 0 <= ratio <= 1 or mean < 0:
        raise ConfigError("images per request: give 0 or more, and a range ratio from 0 to 1")
    buckets = parse_buckets(settings.get("random_mm_bucket_config"))
    rng = np.random.default_rng(order.seed)
    low, high = math.floor(mean * (1 - ratio)), math.ceil(mean * (1 + ratio))
    if most is not None:
        high = min(high, most)
    sizes, chances = list(buckets), np.array(list(buckets.values()))
    samples = []
    for sample in text.samples:
        drawn = rng.choice(len(sizes), int(rng.integers(min(low, high), high + 1)), p=chances / chances.sum())
        images = tuple(Media("image", "png", noise_png(rng, *sizes[place][:2])) for place in drawn.tolist())
        samples.append(Sample(sample.prompt, sample.input_tokens, sample.output_tokens, sample.is_exact, media=images))
    return Drawn(samples, notes=text.notes)


def draw_random_audio(order: Order) -> Drawn:
    """Sounds of noise, ``random_audio_seconds`` long on average; for chat, with random text beside them."""
    settings = order.settings
    mean_s = float(settings.get("random_audio_seconds", 10.0))
    ratio = float(settings.get("random_audio_range_ratio", 0.0))
    if not (mean_s > 0 and 0 <= ratio < 1):
        raise ConfigError("--random-audio-seconds must be more than 0, its range ratio from 0 to below 1")
    text = draw_random(order)
    rng = np.random.default_rng(order.seed)
    samples = []
    for sample in text.samples:
        duration_s = float(rng.uniform(mean_s * (1 - ratio), mean_s * (1 + ratio)))
        sound = Media("audio", "wav", noise_wav(rng, duration_s), duration_s)
        if "text" in order.backend.takes:
            prompt, tokens = sample.prompt, sample.input_tokens
        else:
            prompt, tokens = "", 0
        samples.append(Sample(prompt, tokens, sample.output_tokens, sample.is_exact, media=(sound,)))
    return Drawn(samples, notes=text.notes if "text" in order.backend.takes else ())


def most_images(text: object) -> int | None:
    """``{"image": 3, "video": 0}`` or just 3: the most images of a request. Raises :class:`ConfigError` otherwise."""
    if text is None:
        return None
    try:
        limits = ast.literal_eval(str(text))
        most = limits.get("image") if isinstance(limits, dict) else limits
    except (ValueError, SyntaxError):
        most = -1
    if most is not None and (not isinstance(most, int) or most < 0):
        raise ConfigError(f'--random-mm-limit-mm-per-prompt is {text}; give a number, or {{"image": 3, "video": 0}}')
    return most


def parse_buckets(text: object) -> dict[Bucket, float]:
    """``{(height, width, frames): probability}``; raises :class:`ConfigError` for anything else, and for videos."""
    if text is None:
        return DEFAULT_BUCKETS
    try:
        buckets = ast.literal_eval(str(text))
        found = {(int(h), int(w), int(f)): float(chance) for (h, w, f), chance in buckets.items()}
    except (ValueError, SyntaxError, TypeError, AttributeError):
        found = {}
    if not found or any(h < 1 or w < 1 for h, w, _ in found) or min(found.values()) < 0 or not sum(found.values()):
        raise ConfigError(
            f"--random-mm-bucket-config is {text}; give {{(height, width, 1): probability, ...}}, such as"
            ' "{(256, 256, 1): 0.5, (720, 1280, 1): 0.5}"'
        )
    if any(frames != 1 for _, _, frames in found):
        raise ConfigError("--random-mm-bucket-config asks for videos (frames above 1); only images are made here")
    return found


def noise_png(rng: np.random.Generator, height: int, width: int) -> bytes:
    """An image of random pixels, 8 bits of red, green and blue each (https://www.w3.org/TR/png-3/)."""
    pixels = rng.integers(0, 256, (height, width * 3), dtype=np.uint8)
    rows = np.concatenate([np.zeros((height, 1), dtype=np.uint8), pixels], axis=1)  # filter type 0 before each row
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    # Noise cannot be compressed, so level 0 costs nothing but a few bytes.
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 0)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(kind, data) for kind, data in parts)


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def noise_wav(rng: np.random.Generator, duration_s: float) -> bytes:
    """White noise, one channel of 16 bits at 16 kHz."""
    values = rng.integers(-3000, 3000, max(1, round(duration_s * SAMPLE_RATE_HZ)), dtype=np.int16)
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(SAMPLE_RATE_HZ)
        sound.writeframes(values.astype("<i2").tobytes())
    return file.getvalue()
