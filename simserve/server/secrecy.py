"""Keys that people put where they do not belong, such as a path, are not said again."""

from __future__ import annotations

import re

KEY = re.compile(r"sk-[\w.-]+")
"""What OpenAI's keys, and ours, look like."""


def without_keys(text: str) -> str:
    """``text`` with ``sk-...`` for each."""
    return KEY.sub("sk-...", text) if "sk-" in text else text
