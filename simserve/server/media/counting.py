"""The rules by which one model counts pictures, films and sounds."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from simserve.server.errors import ApiError
from simserve.server.media.images import FixedImage, ImageRule, LlavaNextTiles, OpenAITiles, QwenPatches
from simserve.server.media.parts import AudioPart, MediaPart, VideoPart
from simserve.server.media.sources import film_of, picture_of, recording_of
from simserve.server.media.videos import VideoRule, video_rule

AUDIO_TOKENS_PER_S: Mapping[str, float] = {"qwen2_audio": 25.0, "ultravox": 6.25}
"""By model type: a spectrum of 100 frames a second, shrunk by 4 in Qwen2-Audio's encoder and by 16 in Ultravox's."""

OPENAI_AUDIO_TOKENS_PER_S = 10.0
"""GPT-4o's: a token for every 100 ms of what a user says."""


@dataclass(frozen=True)
class Counted:
    """The tokens that stand for a part in the prompt; ``is_audio`` tells them apart in the usage."""

    token_ids: list[int]
    is_audio: bool


@dataclass(frozen=True)
class MediaRules:
    """``images``, ``videos`` and ``audio_tokens_per_s`` of one model with ``vocab_size`` token ids."""

    images: ImageRule
    audio_tokens_per_s: float
    vocab_size: int
    videos: VideoRule | None = None

    def count(self, part: MediaPart) -> Counted:
        """The tokens for one part; raises :class:`simserve.server.errors.ApiError` (400) for what cannot be read."""
        if isinstance(part, AudioPart):
            sound = recording_of(part)
            count = max(1, math.ceil(sound.seconds * self.audio_tokens_per_s))
            return Counted(self._ids(sound.digest, count), is_audio=True)
        if isinstance(part, VideoPart):
            return self._film(part)
        picture = picture_of(part)
        count = self.images.tokens(picture.width, picture.height, picture.detail)
        return Counted(self._ids(picture.digest, count), is_audio=False)

    def _film(self, part: VideoPart) -> Counted:
        if self.videos is None:
            message = "At most 0 video(s) may be provided in one prompt: this is no model of videos; send pictures."
            raise ApiError(message, param="messages")
        film = film_of(part)
        return Counted(self._ids(film.digest, self.videos.tokens(film.width, film.height, film.frames)), is_audio=False)

    def _ids(self, digest: bytes, count: int) -> list[int]:
        """Ids that are the same for the same picture, so that it is found in the prefix cache, and for no other."""
        first = int.from_bytes(blake2b(digest, digest_size=4).digest(), "little")
        raw = array("I", blake2b(digest, digest_size=64).digest())
        return [(first + raw[at % len(raw)] + at) % self.vocab_size for at in range(count)]


def media_rules(model_folder: Path | None, vocab_size: int) -> MediaRules:
    """The rules of the model in ``model_folder``, by its config.json; OpenAI's for a model that reads text alone."""
    config = _read(model_folder, "config.json")
    kind = str(config.get("model_type", ""))
    audio = AUDIO_TOKENS_PER_S.get(kind, OPENAI_AUDIO_TOKENS_PER_S)
    images = _image_rule(kind, config, _read(model_folder, "preprocessor_config.json"))
    videos = video_rule(kind, config, _read(model_folder, "video_preprocessor_config.json"))
    return MediaRules(images, audio, vocab_size, videos)


def _image_rule(kind: str, config: Mapping[str, Any], processor: Mapping[str, Any]) -> ImageRule:
    vision = config.get("vision_config")
    if not isinstance(vision, dict):
        return OpenAITiles()
    if kind.startswith("qwen"):
        side = vision.get("patch_size", 14) * vision.get("spatial_merge_size", 2)
        plain = QwenPatches()
        return QwenPatches(
            side, processor.get("min_pixels") or plain.min_pixels, processor.get("max_pixels") or plain.max_pixels
        )
    size, patch = vision.get("image_size", 336), vision.get("patch_size", 14)
    if kind == "llava_next":
        grids = tuple((rows, columns) for rows, columns in config.get("image_grid_pinpoints") or LlavaNextTiles.grids)
        return LlavaNextTiles(size, size // patch, grids)
    return FixedImage(config.get("mm_tokens_per_image") or (size // patch) ** 2)


def _read(folder: Path | None, name: str) -> dict[str, Any]:
    file = None if folder is None else folder / name
    if file is None or not file.is_file():
        return {}
    content = json.loads(file.read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else {}
