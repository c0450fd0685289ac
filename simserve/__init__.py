"""SimServe: an LLM server you can run without the hardware."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """``simserve.generate`` is a model's text in one call; torch is imported when it is asked for, and not before."""
    if name == "generate":
        from simserve.engines.torch import generate

        return generate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
