"""Prompts that are longer than this server takes, whatever the model."""

from __future__ import annotations

from simserve.server.errors import ApiError
from simserve.server.generation import Plan


def check_prompts(plan: Plan, max_input_tokens: int | None) -> None:
    """Raise :class:`ApiError` (400) if a prompt of ``plan`` has more than ``max_input_tokens`` tokens."""
    if max_input_tokens is None:
        return
    longest = max(len(choice.sequence.prompt_token_ids) for choice in plan.choices)
    if longest > max_input_tokens:
        raise ApiError(
            f"This server takes prompts of up to {max_input_tokens} tokens. However, your prompt contains {longest}"
            " input tokens; shorten it.",
            code="context_length_exceeded",
        )
