"""How long before they are due the tokens of a large batch begin to be written.

They are all due at one instant, and the machine writes one after the other: were the first written when it is due, all
others would be late, and every figure of a client too high. A pass begins so early that its middle token is on time.
What a step yields is settled when it begins, so no token is known too soon.
"""

from __future__ import annotations

LEAST_TOKENS = 32
"""A pass over fewer takes a fraction of a millisecond and begins when they are due."""

MOST_S = 0.005
MOST_OF_STEP = 0.25
"""No token leaves earlier than this, nor earlier than this part of its step's duration by the wall's clock."""

LEARNT_S = 0.2e-6
"""What a token takes is corrected by no more than this after each pass: one that was disturbed counts for little."""


class Lead:
    """Learns how long passes take."""

    def __init__(self) -> None:
        self._token_s = 0.0

    def of(self, tokens: int, step_wall_s: float) -> float:
        """Seconds before they are due at which to begin with ``tokens`` of a step that takes ``step_wall_s``."""
        if tokens < LEAST_TOKENS:
            return 0.0
        return min(tokens * self._token_s / 2, MOST_S, MOST_OF_STEP * step_wall_s)

    def took(self, tokens: int, seconds: float) -> None:
        """A pass over ``tokens`` took ``seconds``."""
        if tokens >= LEAST_TOKENS:
            self._token_s += min(max(seconds / tokens - self._token_s, -LEARNT_S), LEARNT_S)
