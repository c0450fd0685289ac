"""How many tokens a film takes, by the rules of the models that see films.

Of a film vLLM shows a model 32 frames at most, evenly drawn (its ``--media-io-kwargs``), and so does this.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from simserve.server.media.images import QwenPatches

MAX_FRAMES = 32

QWEN_FRAME = QwenPatches(28, 128 * 28 * 28, 768 * 28 * 28)
"""A frame is scaled as a picture is, within limits of its own."""


class VideoRule(Protocol):
    """Tokens of ``frames`` pictures of ``width`` x ``height`` pixels, of which :data:`MAX_FRAMES` are seen at most."""

    def tokens(self, width: int, height: int, frames: int) -> int: ...


@dataclass(frozen=True)
class QwenFilm:
    """Qwen2-VL and Qwen2.5-VL: ``at_once`` frames are one picture, each scaled as ``patches`` say."""

    patches: QwenPatches = QWEN_FRAME
    at_once: int = 2

    def tokens(self, width: int, height: int, frames: int) -> int:
        each = self.patches.tokens(width, height, "auto") - 2  # the tokens on either end are those of the whole film
        return math.ceil(min(frames, MAX_FRAMES) / self.at_once) * each + 2


@dataclass(frozen=True)
class FixedFrames:
    """So many tokens for each frame, and ``more`` at the end: LLaVA-OneVision (196, 1), LLaVA-NeXT-Video (144, 0)."""

    each: int
    more: int = 0

    def tokens(self, width: int, height: int, frames: int) -> int:
        return min(frames, MAX_FRAMES) * self.each + self.more


def video_rule(kind: str, config: Mapping[str, Any], processor: Mapping[str, Any]) -> VideoRule | None:
    """The rule of a model by its type; None for one that sees no films, or of which it is not known how."""
    vision = config.get("vision_config")
    vision = vision if isinstance(vision, dict) else {}
    if kind in ("qwen2_vl", "qwen2_5_vl"):
        side = vision.get("patch_size", 14) * vision.get("spatial_merge_size", 2)
        fewest, most = processor.get("min_pixels"), processor.get("max_pixels")
        patches = QwenPatches(side, fewest or QWEN_FRAME.min_pixels, most or QWEN_FRAME.max_pixels)
        return QwenFilm(patches, vision.get("temporal_patch_size", 2))
    side = vision.get("image_size", 384) // vision.get("patch_size", 14)
    if kind == "llava_onevision":
        return FixedFrames(math.ceil(side / 2) ** 2, 1)  # every other patch, and a new line behind the film
    if kind == "llava_next_video":
        stride = config.get("spatial_pool_stride", 2)
        return FixedFrames((vision.get("image_size", 336) // vision.get("patch_size", 14) // stride) ** 2)
    return None
