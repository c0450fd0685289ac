"""Upper bounds of the histograms, in seconds or tokens: vLLM 0.33's, so that its dashboards and alerts fit."""

from __future__ import annotations

from itertools import count

TTFT_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0,
    640.0, 2560.0,
)  # fmt: skip

TOKEN_S = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip

REQUEST_S = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
    1920.0, 7680.0,
)  # fmt: skip

CHOICES = (1, 2, 5, 10, 20)
PREEMPTIONS = (1, 2, 3, 4, 5, 10, 20)
STEP_TOKENS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)


def tokens_up_to(most: int) -> list[int]:
    """1, 2, 5, 10, 20, 50, ... as far as ``most``."""
    bounds: list[int] = []
    for exponent in count():
        for digit in (1, 2, 5):
            if digit * 10**exponent > most:
                return bounds
            bounds.append(digit * 10**exponent)
    raise AssertionError("there is no largest power of ten")
