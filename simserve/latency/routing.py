"""Which devices the tokens of a step go to when experts are spread over devices: drawn, as routers' picks look random.

Each token picks its experts uniformly and without repetition. A layer lasts as long as its fullest device; a step goes
through many layers, each with picks of its own, so that the mean of that over draws is what counts. Real routers have
favourites: that is not in here, and makes the fullest device fuller.
"""

from __future__ import annotations

from functools import lru_cache
from math import comb

import numpy as np

from simserve.latency.lines import Floats

DRAWN_TOKENS = tuple(1 << power for power in range(10))
"""Numbers of tokens for which picks are drawn. Beyond, what the fullest device has more than the mean grows as the
square root of the tokens, as sums of independent picks do."""

DRAWS = 32


class FullestDevice:
    """Of ``devices`` that share ``num_experts`` experts evenly, the one with the most to do."""

    def __init__(self, num_experts: int, experts_per_token: int, devices: int) -> None:
        self._experts, self._per_token, self._devices = num_experts, experts_per_token, devices
        self._pairs, self._visited = _drawn(num_experts, experts_per_token, devices)

    def pairs(self, tokens: Floats) -> Floats:
        """(token, expert) pairs that it computes of so many ``tokens``."""
        mean = self._per_token / self._devices
        last = DRAWN_TOKENS[-1]
        excess = (self._pairs[-1] - mean * last) * np.sqrt(np.maximum(tokens, last) / last)
        drawn = np.interp(tokens, (0, *DRAWN_TOKENS), (0.0, *self._pairs))
        return np.where(tokens > last, mean * tokens + excess, drawn)

    def visited(self, tokens: Floats) -> Floats:
        """Experts, of those it has, that any of ``tokens`` picked."""
        here = self._experts / self._devices
        beyond = here * (1 - (1 - self._per_token / self._experts) ** tokens)
        drawn = np.interp(tokens, (0, *DRAWN_TOKENS), (0.0, *self._visited))
        return np.where(tokens > DRAWN_TOKENS[-1], np.maximum(drawn, beyond), drawn)


def remote_devices(num_experts: int, experts_per_token: int, devices: int) -> float:
    """To how many other devices a token must go, on average."""
    elsewhere = comb(num_experts - num_experts // devices, experts_per_token) / comb(num_experts, experts_per_token)
    return (devices - 1) * (1 - elsewhere)


@lru_cache(maxsize=64)
def _drawn(num_experts: int, experts_per_token: int, devices: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Pairs, and visited experts, of the fullest device for each of :data:`DRAWN_TOKENS`: means over draws."""
    rng = np.random.default_rng(0)
    pairs, visited = [], []
    for tokens in DRAWN_TOKENS:
        most = np.zeros((DRAWS, 2))
        for draw in range(DRAWS):
            picks = np.argpartition(rng.random((tokens, num_experts)), experts_per_token - 1, axis=1)
            counts = np.bincount(picks[:, :experts_per_token].ravel(), minlength=num_experts).reshape(devices, -1)
            most[draw] = counts.sum(axis=1).max(), (counts > 0).sum(axis=1).max()
        pairs.append(float(most[:, 0].mean()))
        visited.append(float(most[:, 1].mean()))
    return tuple(pairs), tuple(visited)
