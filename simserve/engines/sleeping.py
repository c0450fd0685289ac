"""Which parts of an engine sleep, and who waits until it has fallen asleep."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

PARTS_BY_LEVEL = {0: ("scheduling",), 1: ("weights", "kv_cache"), 2: ("weights", "kv_cache")}
"""As in vLLM: level 1 keeps the weights in the host's memory and level 2 nowhere, which time does not show here."""

SLEEPABLE_PARTS = ("weights", "kv_cache", "scheduling")


class Sleep:
    """Asleep while any part is; ``level`` is None when awake."""

    def __init__(self) -> None:
        self.level: int | None = None
        self.woke_s = 0.0
        """When the engine was last woken up, on its own clock."""
        self._parts: set[str] = set()
        self._falling: list[asyncio.Future[None]] = []

    @property
    def is_awake(self) -> bool:
        return self.level is None

    @property
    def is_falling(self) -> bool:
        """Whether somebody waits for what still runs to end."""
        return bool(self._falling)

    def begin(self, level: int) -> asyncio.Future[None]:
        """Fall asleep; the future is done once :meth:`fallen` was called, or the engine woken up before."""
        self.level = level
        self._parts = set(PARTS_BY_LEVEL[level])
        falling = asyncio.get_running_loop().create_future()
        self._falling.append(falling)
        return falling

    def fallen(self) -> None:
        """Nothing runs any more."""
        falling, self._falling = self._falling, []
        for one in falling:
            if not one.done():
                one.set_result(None)

    def wake(self, tags: Sequence[str], now_s: float) -> bool:
        """Wake the parts named by ``tags``, or all if there are none; whether the engine is awake now."""
        self._parts -= set(tags or SLEEPABLE_PARTS)
        if not self._parts:
            self.level = None
            self.woke_s = now_s
            self.fallen()
        return self.level is None
