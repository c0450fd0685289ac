"""How many tokens a picture takes, by the rules of the models that read them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class ImageRule(Protocol):
    """Tokens of a picture of ``width`` x ``height`` pixels; ``detail`` is OpenAI's wish."""

    def tokens(self, width: int, height: int, detail: str) -> int: ...


@dataclass(frozen=True)
class FixedImage:
    """Every picture is scaled to one size, as in LLaVA 1.5 (336 / 14 squared: 576), Gemma 3 (256) and many others."""

    count: int

    def tokens(self, width: int, height: int, detail: str) -> int:
        return self.count


@dataclass(frozen=True)
class OpenAITiles:
    """GPT-4o's: a base, and more for each tile of 512 pixels after scaling; "low" is the base alone.

    https://platform.openai.com/docs/guides/images-vision, "Calculating costs".
    """

    base: int = 85
    per_tile: int = 170

    def tokens(self, width: int, height: int, detail: str) -> int:
        if detail == "low":
            return self.base
        shrink = min(1.0, 2048 / max(width, height))
        shrink *= min(1.0, 768 / (min(width, height) * shrink))
        tiles = math.ceil(width * shrink / 512) * math.ceil(height * shrink / 512)
        return self.base + self.per_tile * max(1, tiles)


@dataclass(frozen=True)
class QwenPatches:
    """Qwen2-VL and its successors: a token for each square of ``side`` pixels, and one on either end.

    The picture is scaled so that its sides are multiples of ``side`` and its area lies between the two limits
    (``smart_resize`` in Qwen's image processor).
    """

    side: int = 28
    min_pixels: int = 56 * 56
    max_pixels: int = 28 * 28 * 16384

    def tokens(self, width: int, height: int, detail: str) -> int:
        side = self.side
        rows, columns = max(1, round(height / side)), max(1, round(width / side))
        area = rows * columns * side * side
        if area > self.max_pixels:
            shrink = math.sqrt(width * height / self.max_pixels)
            rows, columns = math.floor(height / shrink / side), math.floor(width / shrink / side)
        elif area < self.min_pixels:
            grow = math.sqrt(self.min_pixels / (width * height))
            rows, columns = math.ceil(height * grow / side), math.ceil(width * grow / side)
        return max(1, rows) * max(1, columns) + 2


@dataclass(frozen=True)
class LlavaNextTiles:
    """LLaVA-NeXT: the whole picture once, and again in the grid that fits it best, without its padding.

    After ``get_image_features`` and ``unpad_image`` of the published model: each row of the grid ends with a token.
    """

    side: int = 336
    patches: int = 24
    grids: Sequence[tuple[int, int]] = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))

    def tokens(self, width: int, height: int, detail: str) -> int:
        rows, columns = self._best(width, height)
        grid_height, grid_width = rows // self.side * self.patches, columns // self.side * self.patches
        if width / height > grid_width / grid_height:
            grid_height -= (grid_height - int(round(height * (grid_width / width), 7))) // 2 * 2
        else:
            grid_width -= (grid_width - int(round(width * (grid_height / height), 7))) // 2 * 2
        return self.patches**2 + grid_height * (grid_width + 1)

    def _best(self, width: int, height: int) -> tuple[int, int]:
        """Height and width of the grid that keeps most of the picture, and of these the smallest."""

        def score(grid: tuple[int, int]) -> tuple[int, int]:
            scale = min(grid[1] / width, grid[0] / height)
            kept = min(int(width * scale) * int(height * scale), width * height)
            return kept, -(grid[0] * grid[1] - kept)

        return max(self.grids, key=score)
