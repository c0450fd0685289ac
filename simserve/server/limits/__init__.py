"""What a server takes on, and what it refuses: rates of keys, lengths, queue, time, and everything once it ends."""

from __future__ import annotations

from simserve.server.limits.admission import RequestLimits
from simserve.server.limits.charging import Charging, Counter, say_what_is_left
from simserve.server.limits.drain import Drain
from simserve.server.limits.rates import Rates
from simserve.server.limits.timeouts import body_in_time, taken_deadline, time_limit

__all__ = [
    "Charging",
    "Counter",
    "Drain",
    "Rates",
    "RequestLimits",
    "body_in_time",
    "say_what_is_left",
    "taken_deadline",
    "time_limit",
]
