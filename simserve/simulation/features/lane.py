"""One direction of a connection that transfers share: first come first served, each at the whole bandwidth."""

from __future__ import annotations

GIGA = 1e9


class Lane:
    """What is sent over ``bandwidth_bytes_per_s`` is there ``latency_s`` after its last byte left."""

    def __init__(self, bandwidth_bytes_per_s: float, latency_s: float) -> None:
        self.busy_s = 0.0
        self.sent_bytes = 0
        self._bandwidth_bytes_per_s = bandwidth_bytes_per_s
        self._latency_s = latency_s
        self._free_s = 0.0

    def send(self, size_bytes: int, earliest_s: float) -> float:
        """When ``size_bytes`` that can start at ``earliest_s`` have come."""
        duration_s = size_bytes / self._bandwidth_bytes_per_s
        self._free_s = max(self._free_s, earliest_s) + duration_s
        self.busy_s += duration_s
        self.sent_bytes += size_bytes
        return self._free_s + self._latency_s
