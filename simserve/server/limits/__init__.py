"""What a server takes on, and what it refuses."""

from __future__ import annotations

from simserve.server.limits.lengths import check_prompts

__all__ = ["check_prompts"]
