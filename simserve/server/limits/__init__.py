"""What a server takes on, and what it refuses."""

from __future__ import annotations

from simserve.server.limits.charging import Charging, say_what_is_left
from simserve.server.limits.lengths import check_prompts
from simserve.server.limits.rates import Rates

__all__ = ["Charging", "Rates", "check_prompts", "say_what_is_left"]
