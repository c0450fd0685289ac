"""Prompts that are longer than this server takes, whatever the model."""

from __future__ import annotations

from simserve.server.errors import ApiError


def check_length(prompt_tokens: int, max_input_tokens: int | None) -> None:
    """Raise :class:`ApiError` (400) for a prompt of more than ``max_input_tokens`` tokens."""
    if max_input_tokens is not None and prompt_tokens > max_input_tokens:
        raise ApiError(
            f"This server takes prompts of up to {max_input_tokens} tokens. However, your prompt contains"
            f" {prompt_tokens} input tokens; shorten it.",
            code="context_length_exceeded",
        )
