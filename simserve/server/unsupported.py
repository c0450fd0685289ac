"""What would change the answer and is not simulated: refused with a sentence, never read and ignored."""

from __future__ import annotations

from typing import Any

from simserve.server.errors import ApiError

_REFUSED = (
    "logprobs",
    "top_logprobs",
    "prompt_logprobs",
    "logit_bias",
    "echo",
    "suffix",
    "structured_outputs",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "use_beam_search",
    "stop_token_ids",
    "allowed_token_ids",
    "bad_words",
    "truncate_prompt_tokens",
    "prompt_embeds",
    "audio",
    "continue_final_message",
    "return_token_ids",
)

# What these fields may say without asking for anything. Zero is not among them: `logprobs: 0` asks for logprobs.
_ASKS_NOTHING: tuple[Any, ...] = (None, False, "", [], {})


def refuse_unsupported(fields: dict[str, Any]) -> None:
    """Raise :class:`ApiError` (400) if the body asks for something that the simulated engine cannot give."""
    for name in _REFUSED:
        if not _asks_nothing(name, fields.get(name)):
            raise _unsupported(name)
    _refuse_best_of(fields.get("best_of"))
    _refuse_format(fields.get("response_format"))
    _refuse_forced_tool(fields.get("tool_choice"))
    _refuse_other_modalities(fields.get("messages"))


def _asks_nothing(name: str, value: object) -> bool:
    if name == "top_logprobs" and value == 0:
        return True
    return any(type(value) is type(nothing) and value == nothing for nothing in _ASKS_NOTHING)


def _refuse_best_of(value: object) -> None:
    if value not in (None, 1):
        raise _unsupported("best_of", "above 1")


def _refuse_format(value: object) -> None:
    kind = value.get("type") if isinstance(value, dict) else None
    if value is not None and kind is None:
        raise ApiError("Invalid `response_format`: it must be an object with a `type`.", param="response_format")
    if kind not in (None, "text"):
        raise _unsupported("response_format", f"of type {kind!r}")


def _refuse_forced_tool(value: object) -> None:
    if value == "required" or isinstance(value, dict):
        raise _unsupported("tool_choice", "that forces a tool call")


def _refuse_other_modalities(messages: object) -> None:
    for message in messages if isinstance(messages, list) else []:
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else []:
            kind = part.get("type") if isinstance(part, dict) else None
            if isinstance(kind, str) and kind not in ("text", "input_text"):
                raise ApiError(
                    f"Content of type {kind!r} is not supported by the simulated engine yet; send text.",
                    param="messages",
                )


def _unsupported(name: str, what: str = "") -> ApiError:
    subject = f"`{name}` {what}".strip()
    return ApiError(
        f"{subject} is not supported by the simulated engine yet; leave it out.", param=name, code="unsupported"
    )
