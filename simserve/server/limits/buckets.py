"""A token bucket: so many at once, and as many again every minute."""

from __future__ import annotations

from dataclasses import dataclass

PERIOD_S = 60.0


@dataclass
class Bucket:
    """``limit`` things a minute; it starts full and fills evenly. Times are seconds on any clock that goes forward."""

    limit: int
    level: float
    filled_s: float

    @classmethod
    def full(cls, limit: int, now_s: float) -> Bucket:
        """A bucket that nobody has taken from yet."""
        return cls(limit, limit, now_s)

    def take(self, count: int, now_s: float) -> bool:
        """Take ``count`` if they are there."""
        self._fill(now_s)
        if self.level < count:
            return False
        self.level -= count
        return True

    def give_back(self, count: int, now_s: float) -> None:
        """Put back what was taken and not used."""
        self._fill(now_s)
        self.level = min(self.limit, self.level + count)

    def seconds_until(self, count: int, now_s: float) -> float:
        """How long until ``count`` can be taken; ``inf`` if they never can."""
        self._fill(now_s)
        if count > self.limit:
            return float("inf")
        return max(0.0, count - self.level) * PERIOD_S / self.limit

    def _fill(self, now_s: float) -> None:
        self.level = min(self.limit, self.level + (now_s - self.filled_s) * self.limit / PERIOD_S)
        self.filled_s = now_s
